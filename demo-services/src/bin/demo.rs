//! Tells the story. Under other names, which only it uses, it plays the other parts too.

fn main() -> std::process::ExitCode {
    fusebox_demo::main_as(None)
}
