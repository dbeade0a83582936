//! `deltran`: the one program. It parses the command line, runs the command and exits with its code.

mod bench;
mod boot;
mod cli;
mod client;
mod demo;
mod endpoint;
mod engines;
mod file;
mod generate;
mod output;
mod problem;
mod serve;
mod services;
mod stage;
mod topology;
mod up;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use cli::Cli;
use problem::Problem;

/// Batches are made in one thread and dropped in another, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let as_json = cli.json;
    deltran_messaging::points::from_environment();
    let done = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let done = runtime.block_on(cli.run());
            // A reader that waits for its file must not keep the process.
            runtime.shutdown_timeout(Duration::from_secs(1));
            done
        }
        Err(error) => Err(Problem::refused(format!("cannot start: {error}"))),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            problem.tell(as_json);
            ExitCode::from(problem.kind.code())
        }
    }
}
