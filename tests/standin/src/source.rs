//! Where settings come from: the environment, and a config file of `KEY=value` lines whose keys win.

use std::collections::BTreeMap;

/// Longest config file that is read.
const LIMIT: usize = 1 << 20;

/// Variables and, over them, the lines of the config file.
#[derive(Debug, Default)]
pub struct Source {
    values: BTreeMap<String, String>,
    /// The config file's text as it was read, if there is one.
    pub config: Option<String>,
}

impl Source {
    /// Reads the process's environment and the file that `STANDIN_CONFIG` names.
    pub fn load() -> Result<Self, String> {
        let variables = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let mut source = Self { values: variables, config: None };
        let Some(path) = source.get("STANDIN_CONFIG").map(str::to_owned) else {
            return Ok(source);
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("STANDIN_CONFIG names {path}, which cannot be read: {error}"))?;
        source.add_config(&path, text)?;
        Ok(source)
    }

    /// Lays the lines of a config file over what is known so far.
    pub fn add_config(&mut self, path: &str, text: String) -> Result<(), String> {
        if text.len() > LIMIT {
            return Err(format!("{path} has {} bytes; at most {LIMIT} are read", text.len()));
        }
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once('=') {
                Some((key, value)) if is_key(key.trim_end()) => {
                    self.values.insert(key.trim_end().to_owned(), value.trim().to_owned());
                }
                _ => {
                    return Err(format!("{path}, line {}: expected KEY=value or a # comment", index + 1));
                }
            }
        }
        self.config = Some(text);
        Ok(())
    }

    /// A setting; one that is set to nothing counts as not set.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    #[cfg(test)]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let values = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { values, config: None }
    }
}

fn is_key(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_file_wins_over_the_environment() {
        let mut source = Source::of(&[("VERSION", "v1"), ("LISTEN", "81")]);
        source.add_config("web.conf", "# a comment\n\nVERSION = v2\r\nGREETING=a=b\n".to_owned()).unwrap();
        assert_eq!(source.get("VERSION"), Some("v2"));
        assert_eq!(source.get("LISTEN"), Some("81"));
        assert_eq!(source.get("GREETING"), Some("a=b"));
    }

    #[test]
    fn nothing_counts_as_not_set() {
        let mut source = Source::of(&[("VERSION", "v1"), ("MODE", "")]);
        source.add_config("web.conf", "VERSION=\n".to_owned()).unwrap();
        assert_eq!((source.get("VERSION"), source.get("MODE")), (None, None));
    }

    #[test]
    fn a_line_that_is_no_assignment_is_named_by_number() {
        for bad in ["hello", "=x", "1A=x", "A B=x", "export A=x"] {
            let error = Source::default().add_config("web.conf", format!("A=1\n{bad}\n")).unwrap_err();
            assert_eq!(error, "web.conf, line 2: expected KEY=value or a # comment", "{bad}");
        }
    }

    #[test]
    fn a_config_file_has_a_limit() {
        let long = "#".repeat(LIMIT + 1);
        assert!(Source::default().add_config("web.conf", long).unwrap_err().contains("at most"));
    }
}
