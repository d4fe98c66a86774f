//! A stand-in for a tenant's application: a small HTTP server whose behaviour is set by variables and by a mounted
//! config file. See `README.md` for all of them.

mod app;
mod files;
mod health;
mod http;
mod settings;
mod source;

use std::process::ExitCode;

const USAGE: &str =
    "standin: the only command is `health`; without one it serves (or does its job, with MODE=job)";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (None, None) => match app::run() {
            Ok(code) => ExitCode::from(code),
            Err(message) => {
                eprintln!("standin: {message}");
                ExitCode::from(2)
            }
        },
        (Some("health"), None) => match health::check() {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                println!("{message}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
