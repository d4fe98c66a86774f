//! What a tree consists of, as the manifest says it: one line of JSON for each file, folder and link.

use std::fmt;

use serde::{Deserialize, Serialize};
use tenantry_api::names::Sha256;

/// The longest path in a tree, in bytes: what the kernel takes in one call.
const PATH_LIMIT: usize = 4_000;
/// How deep folders may be nested: each level costs an open folder while the tree is read.
pub(crate) const DEPTH_LIMIT: usize = 256;
/// Marks a name that is not UTF-8, or that begins with this very mark.
const HEX: &str = "hex:";

/// Bytes that are text nearly always: a name, a link's target, an attribute's value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Text(pub Vec<u8>);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        use fmt::Write as _;
        match Self::from_utf8(text.0) {
            Ok(plain) if !plain.starts_with(HEX) => plain,
            other => {
                let bytes = other.map_or_else(std::string::FromUtf8Error::into_bytes, Self::into_bytes);
                bytes.iter().fold(HEX.to_owned(), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                })
            }
        }
    }
}

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let Some(digits) = text.strip_prefix(HEX) else { return Ok(Self(text.into_bytes())) };
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok().filter(|_| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Self).ok_or("the digits after 'hex:' are not hexadecimal")
    }
}

/// A path in a tree, relative to its top, which itself is the empty path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub(crate) struct TreePath(Text);

impl TreePath {
    /// The top.
    pub fn top() -> Self {
        Self(Text(Vec::new()))
    }

    /// A name in the folder at this path.
    pub fn join(&self, name: &[u8]) -> Result<Self, &'static str> {
        let mut path = self.0.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self::try_from(Text(path))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0.0
    }

    pub fn is_top(&self) -> bool {
        self.0.0.is_empty()
    }
}

impl From<TreePath> for Text {
    fn from(path: TreePath) -> Self {
        path.0
    }
}

impl TryFrom<Text> for TreePath {
    type Error = &'static str;

    fn try_from(text: Text) -> Result<Self, Self::Error> {
        if text.0.is_empty() {
            return Ok(Self(text));
        }
        if text.0.len() > PATH_LIMIT {
            return Err("the path is longer than 4000 bytes");
        }
        if text.0.contains(&0) {
            return Err("the path has a NUL byte");
        }
        let mut depth = 0;
        for part in text.0.split(|byte| *byte == b'/') {
            depth += 1;
            match part {
                b"" => return Err("the path is absolute, or has an empty part"),
                b"." | b".." => return Err("the path has a part '.' or '..'"),
                part if part.len() > 255 => return Err("the path has a name of more than 255 bytes"),
                _ => {}
            }
        }
        if depth > DEPTH_LIMIT {
            return Err("the path is more than 256 folders deep");
        }
        Ok(Self(text))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_top() { f.write_str(".") } else { self.0.fmt(f) }
    }
}

/// A file, folder or link of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Entry {
    pub path: TreePath,
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// When its content changed last: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes, access control lists among them, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(String, Text)>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Kind {
    Folder {},
    /// A file. A long one has no hash of its own: its pieces have.
    File {
        size: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<Sha256>,
    },
    /// Kept as it is and never followed, so that where it leads does no harm.
    Symlink {
        target: Text,
    },
    /// One more name of a file that came before.
    Link {
        to: TreePath,
    },
}

/// A line of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Line {
    /// The first line.
    Begin {
        version: u32,
        /// Whose data it is.
        of: String,
        /// What stands before each path in the archive.
        prefix: Text,
    },
    /// A frame of the archive, which holds what the next `lines` lines say.
    Frame {
        /// Its length in the archive.
        packed: usize,
        /// Its length when it is unpacked.
        raw: usize,
        lines: usize,
    },
    Entry(Entry),
    /// A piece of a long file; all of them follow its entry, in order.
    Piece {
        offset: u64,
        bytes: usize,
        sha256: Sha256,
    },
    /// The last line, after the frame that ends the archive.
    End {},
}
