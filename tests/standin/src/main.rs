//! A stand-in for a tenant's application: a small HTTP server whose behaviour is set by variables and by a mounted
//! config file. See `README.md` for all of them.

mod app;
mod files;
mod health;
mod http;
mod settings;
mod source;

use std::process::ExitCode;

fn main() -> ExitCode {
    // What else a compose file's `command` says is meant for the program that this one stands in for.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["health"] => told(health::check()),
        ["health", "--watch"] => told(health::watch()),
        _ => serve(),
    }
}

fn serve() -> ExitCode {
    match app::run() {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("standin: {message}");
            ExitCode::from(2)
        }
    }
}

fn told(health: Result<(), String>) -> ExitCode {
    match health {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("{message}");
            ExitCode::FAILURE
        }
    }
}
