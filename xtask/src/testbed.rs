//! `cargo xtask testbed`: the servers that the tests run against.

use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;
use comfy_table::{Table, presets};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Start the servers; makes their images first where they are missing
    Up,
    /// List the servers: image, state, and URL
    Status,
    /// Remove the servers with their data; the images stay
    Down,
}

pub(crate) fn run(action: Action) -> Result<ExitCode, String> {
    match action {
        Action::Up => up()?,
        Action::Status => status()?,
        Action::Down => down()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up() -> Result<(), String> {
    let began = Instant::now();
    for (_, server) in testbed::up() {
        server.map_err(|missing| missing.to_string())?;
    }
    eprintln!("testbed: up in {:.1?}", began.elapsed());
    status()
}

fn status() -> Result<(), String> {
    let rows = testbed::status().map_err(|missing| missing.to_string())?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SERVER", "IMAGE", "STATE", "URL"]);
    for row in rows {
        table.add_row([row.server, row.image, row.state, row.url]);
    }
    println!("{}", table.trim_fmt());
    Ok(())
}

fn down() -> Result<(), String> {
    let removed = testbed::down().map_err(|error| error.to_string())?;
    if removed.is_empty() {
        println!("nothing to remove");
    }
    for name in removed {
        println!("removed {name}");
    }
    Ok(())
}
