//! HTTP calls under the policy that the control plane has for `service-b`:
//!
//! ```sh
//! cargo run -p fusebox --example reqwest -- http://127.0.0.1:7443 http://127.0.0.1:3001/
//! ```

use std::{
    io::{self, Write as _},
    time::Duration,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let mut arguments = std::env::args().skip(1);
    let (Some(control_plane), Some(url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: reqwest CONTROL_PLANE URL".into());
    };
    let client = fusebox::Client::builder("service-a").control_plane(control_plane).start()?;
    // Calls need not wait for this: without it the first ones may run before any policy is known.
    client.wait_ready(Duration::from_secs(2)).await;
    let http = client.target("service-b").reqwest(reqwest::Client::builder())?;
    match http.get(url).send().await {
        Ok(response) => {
            let attempts = response.extensions().get::<fusebox::Attempts>().map_or(0, |attempts| attempts.0);
            let fallback = response.extensions().get::<fusebox::Replaced>().is_some();
            let status = response.status();
            writeln!(io::stdout(), "{status} after {attempts} attempts, fallback: {fallback}")?;
            writeln!(io::stdout(), "{}", response.text().await?)?;
        }
        Err(error) => writeln!(io::stdout(), "{error}; try again in {:?}", error.retry_after())?,
    }
    Ok(())
}
