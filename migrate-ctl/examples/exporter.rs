//! Serves made-up numbers that grow each second, to look at the dashboard
//! without a NUMA machine and without root:
//! `cargo run -p migrate-ctl --example exporter -- 127.0.0.1:9816`.

#[path = "../tests/exporter/sample/mod.rs"]
mod sample;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use migrate_ctl::http;
use tokio::sync::watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .context("the address to listen on is missing, as in 127.0.0.1:9816")?
        .parse()
        .context("the address is not of the form 127.0.0.1:9816")?;
    let listener = http::bind(address).await?;
    let (publish, snapshots) = watch::channel(None);
    let publishing = async {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        for ticks in 1.. {
            second.tick().await;
            publish.send_replace(Some(Arc::new(sample::snapshot(ticks))));
        }
    };
    tokio::join!(http::serve(listener, snapshots, http::Limits::default()), publishing);
    Ok(())
}
