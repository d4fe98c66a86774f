//! What the stand-in is told to do, parsed once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::source::Source;

/// How the stand-in behaves. Times are counted from the start of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What `/` and `/version` answer.
    pub version: String,
    /// Whether it serves or ends by itself without listening.
    pub mode: Mode,
    /// Where it listens.
    pub listen: SocketAddr,
    /// It does not listen before this has passed.
    pub start_delay: Duration,
    /// `/health` answers 503 before this.
    pub healthy_after: Duration,
    /// `/health` answers 503 from this on.
    pub unhealthy_from: Option<Duration>,
    /// When it ends by itself, and how.
    pub end: Option<End>,
    /// SIGTERM and SIGINT do nothing.
    pub ignore_sigterm: bool,
    /// What is said on stderr at the start, word for word.
    pub says: Option<String>,
}

/// Whether the stand-in serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Answers requests until it is told to end.
    Serve,
    /// A one-shot: listens nowhere and ends by itself.
    Job,
}

/// The stand-in ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub after: Duration,
    /// The exit code.
    pub code: u8,
    /// What is said on stderr.
    pub words: &'static str,
}

impl Settings {
    /// Reads the settings; an error is a sentence that names the setting, what it was and what it may be.
    pub fn parse(source: &Source) -> Result<Self, String> {
        let mode = match source.get("MODE") {
            None | Some("serve") => Mode::Serve,
            Some("job") => Mode::Job,
            Some(other) => return Err(format!("MODE is {other:?}; it may be serve (the default) or job")),
        };
        Ok(Self {
            version: source.get("VERSION").unwrap_or("unknown").to_owned(),
            mode,
            listen: listen(source.get("LISTEN").unwrap_or("8080"))?,
            start_delay: duration(source, "START_DELAY")?.unwrap_or_default(),
            healthy_after: duration(source, "HEALTHY_AFTER")?.unwrap_or_default(),
            unhealthy_from: duration(source, "UNHEALTHY_FROM")?,
            end: end(source, mode)?,
            ignore_sigterm: flag(source, "IGNORE_SIGTERM")?,
            says: source
                .get("SAYS")
                .map(|words| words.replace("$TOKEN", source.get("TOKEN").unwrap_or_default())),
        })
    }

    /// Whether `/health` answers 200 when the process has this age.
    pub fn is_healthy(&self, age: Duration) -> bool {
        age >= self.healthy_after && self.unhealthy_from.is_none_or(|from| age < from)
    }
}

fn end(source: &Source, mode: Mode) -> Result<Option<End>, String> {
    let code = source
        .get("EXIT_CODE")
        .map(|text| text.parse::<u8>().map_err(|_| format!("EXIT_CODE is {text:?}; it may be 0 to 255")))
        .transpose()?;
    let exit_after = duration(source, "EXIT_AFTER")?;
    let crash_after = duration(source, "CRASH_AFTER")?;
    if code.is_some() && exit_after.is_none() && mode == Mode::Serve {
        return Err("EXIT_CODE is set, but not when to end: set EXIT_AFTER, or MODE=job".to_owned());
    }
    let exit_after = exit_after.or((mode == Mode::Job).then_some(Duration::ZERO));
    let exit = exit_after.map(|after| End { after, code: code.unwrap_or(0), words: "ends as told" });
    let crash = crash_after.map(|after| End { after, code: 1, words: "crashes as told" });
    Ok([exit, crash].into_iter().flatten().min_by_key(|end| end.after))
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    text.parse()
        .map_err(|_| format!("LISTEN is {text:?}; it may be a port or ADDRESS:PORT, for example 8080"))
}

fn flag(source: &Source, key: &str) -> Result<bool, String> {
    match source.get(key) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(other) => Err(format!("{key} is {other:?}; it may be true or false")),
    }
}

fn duration(source: &Source, key: &str) -> Result<Option<Duration>, String> {
    let Some(text) = source.get(key) else {
        return Ok(None);
    };
    let parsed = text.find(|c: char| !c.is_ascii_digit()).and_then(|split| {
        let (number, unit) = text.split_at(split);
        let number: u32 = number.parse().ok()?;
        match unit {
            "ms" => Some(Duration::from_millis(number.into())),
            "s" => Some(Duration::from_secs(number.into())),
            "m" => Some(Duration::from_mins(number.into())),
            "h" => Some(Duration::from_hours(number.into())),
            _ => None,
        }
    });
    parsed.map(Some).ok_or_else(|| {
        format!("{key} is {text:?}; it may be a whole number and ms, s, m or h, for example 2s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::parse(&Source::of(pairs))
    }

    #[test]
    fn without_settings_it_serves_on_8080_and_is_healthy() {
        let settings = parse(&[]).unwrap();
        assert_eq!(settings.listen, "0.0.0.0:8080".parse().unwrap());
        assert_eq!((settings.mode, settings.end, settings.ignore_sigterm), (Mode::Serve, None, false));
        assert_eq!((settings.start_delay, settings.version.as_str()), (Duration::ZERO, "unknown"));
        assert!(settings.is_healthy(Duration::ZERO));
    }

    #[test]
    fn all_settings_are_read() {
        let settings = parse(&[
            ("VERSION", "v2"),
            ("LISTEN", "127.0.0.1:81"),
            ("START_DELAY", "2s"),
            ("HEALTHY_AFTER", "500ms"),
            ("UNHEALTHY_FROM", "1m"),
            ("EXIT_CODE", "3"),
            ("EXIT_AFTER", "10s"),
            ("IGNORE_SIGTERM", "true"),
        ]);
        let expected = Settings {
            version: "v2".to_owned(),
            mode: Mode::Serve,
            listen: "127.0.0.1:81".parse().unwrap(),
            start_delay: Duration::from_secs(2),
            healthy_after: Duration::from_millis(500),
            unhealthy_from: Some(Duration::from_mins(1)),
            end: Some(End { after: Duration::from_secs(10), code: 3, words: "ends as told" }),
            ignore_sigterm: true,
            says: None,
        };
        assert_eq!(settings, Ok(expected));
    }

    #[test]
    fn health_has_a_beginning_and_an_end() {
        let settings = parse(&[("HEALTHY_AFTER", "2s"), ("UNHEALTHY_FROM", "4s")]).unwrap();
        let at = |millis| settings.is_healthy(Duration::from_millis(millis));
        assert_eq!([at(0), at(1999), at(2000), at(3999), at(4000)], [false, false, true, true, false]);
    }

    #[test]
    fn a_job_ends_at_once_with_0_unless_told_otherwise() {
        let end = |pairs: &[(&str, &str)]| parse(pairs).unwrap().end.map(|end| (end.after, end.code));
        assert_eq!(end(&[("MODE", "job")]), Some((Duration::ZERO, 0)));
        assert_eq!(end(&[("MODE", "job"), ("EXIT_CODE", "7")]), Some((Duration::ZERO, 7)));
        assert_eq!(end(&[("MODE", "job"), ("EXIT_AFTER", "2s")]), Some((Duration::from_secs(2), 0)));
    }

    #[test]
    fn the_earlier_of_exit_and_crash_happens() {
        let end =
            |exit, crash| parse(&[("EXIT_AFTER", exit), ("CRASH_AFTER", crash)]).unwrap().end.unwrap().code;
        assert_eq!((end("1s", "2s"), end("3s", "2s")), (0, 1));
    }

    #[test]
    fn a_bad_value_is_named_with_what_it_may_be() {
        let cases = [
            ("MODE", "batch", "job"),
            ("LISTEN", "70000", "a port"),
            ("LISTEN", "localhost", "a port"),
            ("START_DELAY", "2", "for example 2s"),
            ("START_DELAY", "1.5s", "for example 2s"),
            ("HEALTHY_AFTER", "-1s", "for example 2s"),
            ("UNHEALTHY_FROM", "s", "for example 2s"),
            ("EXIT_AFTER", "99999999999s", "for example 2s"),
            ("CRASH_AFTER", "2d", "for example 2s"),
            ("EXIT_CODE", "256", "0 to 255"),
            ("IGNORE_SIGTERM", "yes", "true or false"),
        ];
        for (key, value, hint) in cases {
            let error = parse(&[(key, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{key} is {value:?};")), "{error}");
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn an_exit_code_that_nothing_uses_is_refused() {
        assert!(parse(&[("EXIT_CODE", "3")]).unwrap_err().contains("EXIT_AFTER"));
    }
}
