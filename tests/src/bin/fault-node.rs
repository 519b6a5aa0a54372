//! A node of the fault suite: writes each call that its handlers are given into a journal.

use std::{io::Read, path::PathBuf, process, sync::Arc, thread, time::Duration};

use clap::Parser;
use micro::{Request, Response, Service, Status, tls::ServerTls};
use tests::{
    fault::{Journal, SERVICE},
    proto::ledger::{Entry, LedgerHandler, Receipt, register_ledger_handler},
};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    id: String,
    #[arg(long)]
    address: String,
    #[arg(long)]
    registry: String,
    #[arg(long)]
    journals: PathBuf,
    /// The folder with `ca`, `cert` and `key`; plaintext without.
    #[arg(long)]
    tls: Option<PathBuf>,
}

struct Ledger {
    node: String,
    journal: Arc<Journal>,
}

impl Ledger {
    async fn receipt(&self, entry: Entry) -> Response<Receipt> {
        self.journal.begin(entry.id);
        // Long enough that at any moment calls are in flight on each node.
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.journal.end(entry.id);
        Response::new(Receipt { node: self.node.clone() })
    }
}

impl LedgerHandler for Ledger {
    async fn read(&self, request: Request<Entry>) -> Result<Response<Receipt>, Status> {
        Ok(self.receipt(request.into_inner()).await)
    }

    async fn write(&self, request: Request<Entry>) -> Result<Response<Receipt>, Status> {
        Ok(self.receipt(request.into_inner()).await)
    }
}

#[tokio::main]
async fn main() -> Result<(), micro::Error> {
    let filter = EnvFilter::from_default_env(); // RUST_LOG; errors unless set
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = Args::parse();
    thread::spawn(|| {
        // The parent's end of the pipe closes with it, however it ends.
        let _ = std::io::stdin().read(&mut [0]);
        process::exit(1);
    });

    let journal = Journal::open(&args.journals, &args.id).expect("the journal can be opened");
    let ledger = Ledger { node: args.id.clone(), journal: Arc::new(journal) };
    let mut service = Service::builder(SERVICE)
        .id(args.id)
        .address(args.address)
        .registry(args.registry)
        .build()
        .await?;
    register_ledger_handler(service.server(), ledger);
    if let Some(folder) = args.tls {
        let [ca, cert, key] = ["ca", "cert", "key"].map(|name| folder.join(name));
        service.server().tls(ServerTls::from_files(cert, key).client_ca_file(ca));
    }
    service.run().await
}
