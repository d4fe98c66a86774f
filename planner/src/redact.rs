//! Secret values out of what others printed (P12): a value that is known is replaced by its name, as compose writes it.
//!
//! Known are all values of `.env` and of files like it, and of other assignments those whose name says that they are
//! secret. Each is looked for as it is, as in a URL, and as in JSON; of a value of several lines each line. What is
//! shorter than four bytes is masked only as a word of its own, and only where its name says that it is secret: a log
//! without any `1` tells nobody anything.
//!
//! Caveat: what a program derives from a secret (its Base64, its hash) is not known and stays.

use std::collections::BTreeMap;

use crate::env::EnvFile;

/// The shortest value that is masked wherever it stands.
const SHORTEST: usize = 4;
/// What names of secrets contain.
const SECRET_WORDS: [&str; 14] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "credential",
    "auth",
    "private",
    "salt",
    "cookie",
    "session",
    "dsn",
    "license",
    "webhook",
];
/// Values that keep nothing secret, whatever they are called.
const PLAIN: [&str; 12] = [
    "true",
    "false",
    "none",
    "null",
    "info",
    "debug",
    "warn",
    "error",
    "localhost",
    "0.0.0.0",
    "127.0.0.1",
    "root",
];

/// What is masked, and what is put in its place.
#[derive(Clone, Default)]
pub struct Redactor {
    masks: BTreeMap<String, Mask>,
    /// A file whose values nobody knows: nothing is told then.
    unread: Option<String>,
}

#[derive(Clone)]
struct Mask {
    shown: String,
    /// Only where nothing that belongs to a word stands beside it.
    word: bool,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} values)", self.masks.len())
    }
}

impl Redactor {
    /// Every value of a `.env`. One that compose can't read is taken line by line.
    pub fn add_env_file(&mut self, bytes: &[u8]) {
        if let Ok(env) = EnvFile::parse(bytes) {
            for key in env.keys() {
                if let Some(value) = env.get(key).and_then(|value| value.literal()) {
                    self.add(key, value);
                }
            }
        }
        // Also the pieces of values that depend on others, which have no literal text.
        for line in String::from_utf8_lossy(bytes).lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            for piece in value.split(['$', '{', '}', '"', '\'']).filter(|piece| piece.len() >= 2 * SHORTEST) {
                self.add(key.trim().trim_start_matches("export "), piece.trim());
            }
        }
    }

    /// `NAME=value` as a container has them: those whose name says that they are secret.
    pub fn add_environment<'a>(&mut self, variables: impl IntoIterator<Item = &'a str>) {
        for (name, value) in variables.into_iter().filter_map(|variable| variable.split_once('=')) {
            if is_secret(name) {
                self.add(name, value);
            }
        }
    }

    /// Assignments in a text of any kind, `name: value` or `name=value` on a line: those whose name says that they are secret.
    pub fn add_assignments(&mut self, text: &[u8]) {
        for line in String::from_utf8_lossy(text).lines() {
            let Some((name, value)) = line.split_once(['=', ':']) else { continue };
            let name = name.trim_matches([' ', '\t', '-', '"', '\'']);
            let value = value.trim_matches([' ', '\t', '"', '\'', ',']);
            if is_secret(name) && !value.contains("${") {
                self.add(name, value);
            }
        }
    }

    /// The content of a secret.
    pub fn add_secret(&mut self, name: &str, content: &[u8]) {
        self.add(name, String::from_utf8_lossy(content).trim());
    }

    /// Tells nothing from now on: this file may hold secrets, and can't be read.
    pub fn withhold(&mut self, file: &str) {
        self.unread.get_or_insert_with(|| printable(file));
    }

    /// What is told in place of words whose secrets are not all known.
    fn withheld(&self) -> Option<String> {
        let file = self.unread.as_ref()?;
        Some(format!("(withheld: {file} can't be read, so that secrets from it could not be masked)"))
    }

    /// Leaves this value as it is: everybody knows it.
    pub fn knows(&mut self, value: &str) {
        self.masks.remove(value);
    }

    fn add(&mut self, name: &str, value: &str) {
        let shown = format!("${{{name}}}");
        for line in value.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if PLAIN.contains(&line.to_ascii_lowercase().as_str()) {
                continue;
            }
            let word = line.len() < SHORTEST;
            if word && (!is_secret(name) || line.len() < 2) {
                continue;
            }
            for form in [line.to_owned(), in_url(line), in_json(line)] {
                self.masks.entry(form).or_insert_with(|| Mask { shown: shown.clone(), word });
            }
        }
    }

    /// The text as it may be told: without known secrets, and without what a terminal would take for a command.
    pub fn redact(&self, text: &str) -> String {
        let mut text = printable(text);
        if tenantry_faults::Bug::TellEverything.is_seeded() {
            return text;
        }
        if let Some(sentence) = self.withheld() {
            return sentence;
        }
        let mut masks: Vec<(&String, &Mask)> = self.masks.iter().collect();
        // The longest first: one value may be a part of another.
        masks.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(b.0)));
        for (value, mask) in masks {
            text = replaced(&text, value, mask);
        }
        text
    }

    /// Lines as they may be told. A value of several lines is masked line by line; what is withheld is one sentence.
    pub fn redact_lines<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut lines: Vec<String> = lines.into_iter().map(|line| self.redact(line.trim_end())).collect();
        if self.unread.is_some() {
            lines.dedup();
        }
        lines
    }
}

/// Whether the name of a variable says that its value is secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.contains([' ', '/']) && SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn replaced(text: &str, value: &str, mask: &Mask) -> String {
    if !text.contains(value) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(value) {
        let (before, after) = (&rest[..at], &rest[at + value.len()..]);
        let alone = !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric);
        out.push_str(before);
        out.push_str(if !mask.word || alone { &mask.shown } else { value });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// As in a URL's user or query.
fn in_url(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// As in a text of JSON, without its quotes.
fn in_json(value: &str) -> String {
    let text = serde_json::Value::from(value).to_string();
    text.trim_matches('"').to_owned()
}

/// Without colours, cursor movements and other control characters.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' if letters.peek() == Some(&'[') => {
                letters.next();
                // The sequence ends with a letter or one of a few signs.
                while letters.next_if(|next| !('@'..='~').contains(next)).is_some() {}
                letters.next();
            }
            '\t' | '\n' => out.push(letter),
            _ if letter.is_control() => {}
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn redactor() -> Redactor {
        let mut redactor = Redactor::default();
        redactor.add_env_file(
            b"IMAGE_TAG=v2.1.0\nDB_PASSWORD='hunt er2@x'\nPIN=77\nAPI_KEY=k7\nDEBUG=true\nURL=postgres://u:canary-12345@${H}/x\n",
        );
        redactor.add_environment(["SESSION_SECRET=abcdef", "GREETING=boom: cannot open config"]);
        redactor.add_assignments(
            b"services:\n  db:\n    environment:\n      MYSQL_ROOT_PASSWORD: \"literal-pw\"\n",
        );
        redactor.add_secret("db_password", b"line-one\nline-two\n");
        redactor.knows("v2.1.0");
        redactor
    }

    #[rstest]
    #[case::nothing_secret("boom: cannot open config", "boom: cannot open config")]
    #[case::a_value("login with hunt er2@x failed", "login with ${DB_PASSWORD} failed")]
    #[case::in_a_url("postgres://app:hunt%20er2%40x@db/", "postgres://app:${DB_PASSWORD}@db/")]
    #[case::what_everybody_knows("running v2.1.0", "running v2.1.0")]
    #[case::a_short_secret_is_masked_as_a_word("key k7, not k77", "key ${API_KEY}, not k77")]
    #[case::a_short_value_is_none("took 77 ms", "took 77 ms")]
    #[case::plain_words_stay("debug is true", "debug is true")]
    #[case::of_a_value_that_depends_on_others("postgres://u:canary-12345@h", "${URL}h")]
    #[case::of_the_containers_environment("s=abcdef", "s=${SESSION_SECRET}")]
    #[case::literally_in_the_compose_file("denied for literal-pw", "denied for ${MYSQL_ROOT_PASSWORD}")]
    #[case::each_line_of_a_secret("got line-two", "got ${db_password}")]
    #[case::colours_hide_nothing("\u{1b}[31mhunt\u{1b}[0m er2@x\u{7}\r", "${DB_PASSWORD}")]
    fn p12_what_is_printed_is_told_without_secrets(#[case] printed: &str, #[case] told: &str) {
        assert_eq!(redactor().redact(printed), told);
    }

    #[test]
    fn p12_words_are_withheld_where_a_file_of_secrets_can_not_be_read() {
        let mut redactor = redactor();
        redactor.withhold(".env");
        let told = redactor.redact_lines(["token unknown-canary", "and more"]);
        assert_eq!(told, ["(withheld: .env can't be read, so that secrets from it could not be masked)"]);
        assert!(!redactor.redact("unknown-canary").contains("canary"));
        assert!(redactor.redact_lines([]).is_empty(), "of no words there is nothing to withhold");
    }

    #[test]
    fn p12_a_value_within_another_leaves_no_rest() {
        let mut redactor = Redactor::default();
        redactor.add_env_file(b"A=secret\nB=secret-and-more\n");
        assert_eq!(redactor.redact("secret-and-more, secret"), "${B}, ${A}");
    }

    #[test]
    fn p12_an_env_file_that_compose_can_not_read_is_masked_all_the_same() {
        let mut redactor = Redactor::default();
        redactor.add_env_file(b"TOKEN=\"canary-99887766\n");
        assert_eq!(redactor.redact("x canary-99887766 y"), "x ${TOKEN} y");
    }
}
