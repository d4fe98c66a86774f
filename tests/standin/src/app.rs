//! The stand-in at work: a thread that answers, one that ends the process when it is told to, and the main one, which
//! waits for signals.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::files::{self, Files};
use crate::health;
use crate::http::{self, Answer};
use crate::settings::{Mode, Settings};
use crate::source::Source;

/// Enough for what the threads do; forty stand-ins run beside each other.
const STACK: usize = 64 << 10;

/// What is told, as it was last read.
struct Told {
    settings: Settings,
    config: Option<String>,
    files: Files,
    reloads: u32,
}

impl Told {
    fn of(source: &Source, reloads: u32) -> Result<Self, String> {
        let (settings, files) = (Settings::parse(source)?, files::read(source)?);
        Ok(Self { settings, config: source.config.clone(), files, reloads })
    }
}

/// Runs until it is told to end; returns the exit code.
pub fn run() -> Result<u8, String> {
    let start = Instant::now();
    let source = Source::load()?;
    let told = Told::of(&source, 0)?;
    files::spoil(&source, &told.settings.version)?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| format!("signals cannot be received: {error}"))?;
    let settings = told.settings.clone();
    if let Some(words) = &settings.says {
        eprintln!("{words}");
    }
    let told = Arc::new(RwLock::new(told));
    if let Some(end) = settings.end {
        spawn(move || {
            thread::sleep(end.after.saturating_sub(start.elapsed()));
            exit(end.words, end.code)
        })?;
    }
    if settings.mode == Mode::Serve {
        let told = Arc::clone(&told);
        spawn(move || {
            if let Err(message) = serve(&settings, &told, start) {
                exit(&message, 2)
            }
        })?;
    }
    for signal in signals.forever() {
        let ignores = told.read().unwrap_or_else(PoisonError::into_inner).settings.ignore_sigterm;
        match signal {
            SIGHUP => reload(&told),
            _ if ignores => eprintln!("standin: ignores signal {signal} as told"),
            _ => return Ok(0),
        }
    }
    Ok(0)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().stack_size(STACK).spawn(work);
    thread.map(drop).map_err(|error| format!("a thread cannot be started: {error}"))
}

fn exit(words: &str, code: u8) -> ! {
    eprintln!("standin: {words}, exit code {code}");
    std::process::exit(code.into())
}

/// Reads everything again; what cannot be read or understood changes nothing.
fn reload(told: &RwLock<Told>) {
    let mut told = told.write().unwrap_or_else(PoisonError::into_inner);
    match Source::load().and_then(|source| Told::of(&source, told.reloads + 1)) {
        Ok(new) => *told = new,
        Err(message) => eprintln!("standin: reload refused: {message}"),
    }
}

fn serve(settings: &Settings, told: &RwLock<Told>, start: Instant) -> Result<(), String> {
    thread::sleep(settings.start_delay.saturating_sub(start.elapsed()));
    let fail = |error| format!("LISTEN is {}, which cannot be listened on: {error}", settings.listen);
    let listener = TcpListener::bind(settings.listen).map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    eprintln!("standin: {} listens on {address}", settings.version);
    let mut was_healthy = false;
    http::serve(&listener, |path| {
        let (told, age) = (told.read().unwrap_or_else(PoisonError::into_inner), start.elapsed());
        if path == health::WATCHED { watched(&mut was_healthy, &told, age) } else { answer(path, &told, age) }
    });
    Ok(())
}

/// Whether it is healthy, and whether that is no news.
fn watched(was_healthy: &mut bool, told: &Told, age: Duration) -> Answer {
    let healthy = told.settings.is_healthy(age);
    let still = std::mem::replace(was_healthy, healthy) && healthy;
    if still { Answer::ok(health::STILL) } else { answer("/health", told, age) }
}

fn answer(path: &str, told: &Told, age: Duration) -> Answer {
    let Told { settings, config, files, .. } = told;
    match path {
        "/" | "/version" => Answer::ok(format!("{}\n", settings.version)),
        "/config" => config.clone().map_or_else(Answer::not_found, Answer::ok),
        "/status" => Answer::ok(status(told, age)),
        _ if path.ends_with("/health") && settings.is_healthy(age) => Answer::ok("ok\n"),
        _ if path.ends_with("/health") => Answer::unavailable("not healthy, as told\n"),
        _ => path
            .strip_prefix("/files")
            .and_then(|path| files.get(path))
            .map_or_else(Answer::not_found, |file| Answer::ok(file.clone())),
    }
}

fn status(told: &Told, age: Duration) -> String {
    let mut text = format!(
        "version={}\nhealthy={}\nage_ms={}\nreloads={}\n",
        told.settings.version,
        told.settings.is_healthy(age),
        age.as_millis(),
        told.reloads
    );
    for (path, file) in &told.files {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "file={path} bytes={}", file.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let mut source = Source::of(&[("VERSION", "v7"), ("HEALTHY_AFTER", "1s")]);
        source.add_config("web.conf", "GREETING=hello\n".to_owned()).unwrap();
        let files = Files::from([("/etc/nginx/nginx.conf".to_owned(), b"events {}\n".to_vec())]);
        Told { settings: Settings::parse(&source).unwrap(), config: source.config, files, reloads: 2 }
    }

    fn ask(path: &str, millis: u64) -> (&'static str, String) {
        let Answer { status, body } = answer(path, &told(), Duration::from_millis(millis));
        (status.split(' ').next().unwrap(), String::from_utf8(body).unwrap())
    }

    #[test]
    fn paths_are_answered() {
        let cases = [
            ("/", "200", "v7\n"),
            ("/version", "200", "v7\n"),
            ("/config", "200", "GREETING=hello\n"),
            ("/files/etc/nginx/nginx.conf", "200", "events {}\n"),
            ("/files/etc/shadow", "404", "not found\n"),
            ("/elsewhere", "404", "not found\n"),
        ];
        for (path, status, body) in cases {
            assert_eq!(ask(path, 0), (status, body.to_owned()), "{path}");
        }
    }

    #[test]
    fn health_follows_age_wherever_it_is_asked_for() {
        for path in ["/health", "/api/health"] {
            assert_eq!((ask(path, 999).0, ask(path, 1000).0), ("503", "200"), "{path}");
        }
    }

    #[test]
    fn that_it_is_healthy_is_news_once() {
        let mut was_healthy = false;
        let mut ask = |millis| {
            let Answer { body, .. } = watched(&mut was_healthy, &told(), Duration::from_millis(millis));
            String::from_utf8(body).unwrap()
        };
        assert_eq!([ask(999), ask(1000), ask(1001)], ["not healthy, as told\n", "ok\n", health::STILL]);
        assert_eq!([ask(0), ask(1000)], ["not healthy, as told\n", "ok\n"]);
    }

    #[test]
    fn status_tells_of_reloads_and_files() {
        let expected =
            "version=v7\nhealthy=true\nage_ms=1500\nreloads=2\nfile=/etc/nginx/nginx.conf bytes=10\n";
        assert_eq!(ask("/status", 1500).1, expected);
    }
}
