//! The program `fusebox`: the server, and the operator's verbs.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(fusebox_control_plane::run_from(std::env::args_os().collect()));
    // A verb may be held up in a blocking read of stdin; nothing waits for that.
    runtime.shutdown_background();
    code
}
