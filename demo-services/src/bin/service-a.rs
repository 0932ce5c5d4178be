//! Service A of the article.

fn main() -> std::process::ExitCode {
    fusebox_demo::main_as(Some("service-a"))
}
