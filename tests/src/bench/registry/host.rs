//! The process that nodes are in: they serve there, and are written into the registry from there, so
//! that the client under test hears of them as of any other machine's.

use std::{collections::HashMap, env, error::Error, process::Stdio, sync::Arc, time::Duration};

use micro::{
    Handle, Request, Response, Service, Status, Stream, Streaming,
    registry::{self, Lease, Node, Registry},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{SERVICE, next_line};
use crate::{
    bench::measure::now,
    echo::Echo,
    proto::echo::{
        ChatMessage, CountReply, CountRequest, EchoHandler, SayReply, SayRequest, SumReply,
        SumRequest, register_echo_handler,
    },
};

/// Longer than any benchmark: nothing is renewed.
const TTL: Duration = Duration::from_secs(600);

/// Tells its name.
struct Named(String);

impl EchoHandler for Named {
    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayReply>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(SayReply { payload, node: self.0.clone() }))
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<impl Stream<Item = Result<CountReply, Status>> + Send + 'static>, Status>
    {
        Echo.count(request).await
    }

    async fn sum(
        &self,
        request: Request<Streaming<SumRequest>>,
    ) -> Result<Response<SumReply>, Status> {
        Echo.sum(request).await
    }

    async fn chat(
        &self,
        request: Request<Streaming<ChatMessage>>,
    ) -> Result<Response<impl Stream<Item = Result<ChatMessage, Status>> + Send + 'static>, Status>
    {
        Echo.chat(request).await
    }
}

/// The nodes of one process.
#[derive(Debug)]
struct Nodes {
    registry: Arc<dyn Registry>,
    nodes: HashMap<String, (Handle, Node, Option<Lease>)>,
    /// Where they are registered by themselves, since a service must be somewhere: nobody looks there.
    nowhere: String,
}

impl Nodes {
    fn new(url: &str) -> Result<Self, micro::Error> {
        let nowhere = format!("memory://nowhere-{}", now().as_nanos());
        Ok(Self { registry: registry::open(url)?, nodes: HashMap::new(), nowhere })
    }

    /// `serve ID PLACE`: an address; `register ID` and `deregister ID`: when that began, in ns;
    /// `stop ID`.
    async fn obey(&mut self, line: &str) -> Result<String, Box<dyn Error>> {
        let (word, id) = line.split_once(' ').ok_or("a word and an id")?;
        if word == "serve" {
            let (id, place) = id.split_once(' ').ok_or("an id and a place")?;
            let service = Service::builder(SERVICE).without_env().id(id).address(place);
            let mut service = service.registry(&self.nowhere).build().await?;
            register_echo_handler(service.server(), Named(id.to_owned()));
            let handle = service.start().await?;
            let node = Node::new(SERVICE, id, handle.address());
            let address = node.address.clone();
            self.nodes.insert(id.to_owned(), (handle, node, None));
            return Ok(address);
        }
        let (_, node, lease) = self.nodes.get_mut(id).ok_or("a node that serves")?;
        let begin = now();
        match word {
            "register" => *lease = Some(self.registry.register(node, TTL).await?),
            "deregister" => {
                let lease = lease.take().ok_or("a node that is registered")?;
                self.registry.deregister(node, lease).await?;
            }
            "stop" => {
                let (handle, ..) = self.nodes.remove(id).ok_or("a node that serves")?;
                handle.stop().await?;
            }
            _ => return Err(format!("{word} is no word").into()),
        }
        Ok(begin.as_nanos().to_string())
    }
}

/// Obeys the lines of its input: the program of the process.
///
/// # Errors
/// When a node cannot do what it is told.
pub async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let mut nodes = Nodes::new(url)?;
    while let Some(line) = next_line().await? {
        println!("{}", nodes.obey(&line).await?);
    }
    Ok(())
}

/// Where nodes are.
#[derive(Debug)]
pub struct Host(Place);

#[derive(Debug)]
enum Place {
    /// In this process: what `memory://` holds is seen nowhere else.
    Here(Nodes),
    There(Box<There>),
}

/// Killed when dropped.
#[derive(Debug)]
struct There {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Host {
    /// Nodes that are written into this registry.
    ///
    /// # Errors
    /// When the process does not start.
    pub fn start(url: &str) -> Result<Self, Box<dyn Error>> {
        if url.starts_with("memory://") {
            return Ok(Self(Place::Here(Nodes::new(url)?)));
        }
        let mut process = Command::new(env::current_exe()?)
            .args(["host", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("its input is ours")?;
        let output = BufReader::new(process.stdout.take().ok_or("its output is ours")?).lines();
        Ok(Self(Place::There(Box::new(There { input, output, _process: process }))))
    }

    async fn tell(&mut self, line: &str) -> Result<String, Box<dyn Error>> {
        match &mut self.0 {
            Place::Here(nodes) => nodes.obey(line).await,
            Place::There(there) => {
                there.input.write_all(format!("{line}\n").as_bytes()).await?;
                Ok(there.output.next_line().await?.ok_or("the nodes' process has ended")?)
            }
        }
    }

    /// Has a new node serve at an address, with port 0 at any, and tells where. It is registered
    /// nowhere.
    ///
    /// # Errors
    /// When it cannot, as all of these.
    pub async fn serve(&mut self, id: &str, place: &str) -> Result<String, Box<dyn Error>> {
        self.tell(&format!("serve {id} {place}")).await
    }

    /// Has it registered, and tells when that began.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn register(&mut self, id: &str) -> Result<Duration, Box<dyn Error>> {
        Ok(Duration::from_nanos(self.tell(&format!("register {id}")).await?.parse()?))
    }

    /// Has it deregistered, and tells when that began. It goes on to serve.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn deregister(&mut self, id: &str) -> Result<Duration, Box<dyn Error>> {
        Ok(Duration::from_nanos(self.tell(&format!("deregister {id}")).await?.parse()?))
    }

    /// Has it stop.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn stop(&mut self, id: &str) -> Result<(), Box<dyn Error>> {
        self.tell(&format!("stop {id}")).await.map(drop)
    }
}
