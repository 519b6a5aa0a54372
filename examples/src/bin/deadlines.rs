//! A deadline is set once, by the first caller, and holds for all that follows from its call: the
//! front greeter calls the back one without a word about time, and when the caller's deadline
//! strikes both handlers are dropped.

use std::{error::Error, time::Duration};

use micro::{Client, Handle, Request, Response, Service, Status};
use tokio::{sync::mpsc, time};

micro::include_proto!("greeter.v1");

/// Has somebody else greet.
struct Front {
    back: GreeterClient,
}

impl GreeterHandler for Front {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        self.back.hello(request.into_inner()).await // inherits what is left of the deadline
    }
}

/// Takes an hour to greet, if it is let.
struct Back {
    dropped: mpsc::UnboundedSender<&'static str>,
}

struct Watched(mpsc::UnboundedSender<&'static str>);

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.send("the back's handler was dropped");
    }
}

impl GreeterHandler for Back {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let _watched = Watched(self.dropped.clone());
        time::sleep(Duration::from_secs(3600)).await;
        Ok(Response::new(HelloReply::default()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::builder().registry("memory://").build()?;
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let back = start("back", Back { dropped }).await?;
    let front = start("front", Front { back: GreeterClient::new("back", &client) }).await?;
    let greeter = GreeterClient::new("front", &client);

    let request = HelloRequest { name: "world".to_owned() };
    let begin = time::Instant::now();
    let status = greeter.hello(request).timeout(Duration::from_millis(300)).await.unwrap_err();
    let seconds = begin.elapsed().as_secs_f32();
    println!("{:?} after {seconds:.1} s", status.code());
    println!("{}", drops.recv().await.expect("it was called"));

    front.stop().await?;
    back.stop().await?;
    Ok(())
}

async fn start(name: &str, handler: impl GreeterHandler) -> Result<Handle, micro::Error> {
    let mut service = Service::builder(name).registry("memory://").build().await?;
    register_greeter_handler(service.server(), handler);
    service.start().await
}
