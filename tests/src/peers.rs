//! The links between the members of a cluster, all of which one member can be cut off from: it and the
//! others hear nothing of each other any more, while clients reach all of them as before.
//!
//! A member is reached at one address by all others. Which of them a connection is from, the kernel
//! tells.

use std::{io, pin::pin};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::process;

/// A port before each member's own, where the others are to reach it.
#[derive(Debug)]
pub struct Peers {
    ports: Vec<u16>,
    cut_off: watch::Sender<Option<CutOff>>,
    _accepting: JoinSet<()>,
}

/// The member to which nothing is carried, nor from it.
#[derive(Debug, Clone, Copy)]
struct CutOff {
    member: usize,
    process: u32,
}

impl Peers {
    /// Good links to members that are to listen at these ports.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn of(members: &[u16]) -> Self {
        let (mut ports, mut accepting) = (Vec::new(), JoinSet::new());
        let cut_off = watch::Sender::new(None);
        for (member, &upstream) in members.iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            ports.push(listener.local_addr().expect("a bound listener has an address").port());
            accepting.spawn(accept(listener, member, upstream, cut_off.subscribe()));
        }
        Self { ports, cut_off, _accepting: accepting }
    }

    /// Where the others reach each member.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Carries nothing any more between this member, which is this process, and the others, on no
    /// connection there is or will be until it is [mended](Self::mend). Nobody is told.
    pub fn cut_off(&self, member: usize, process: u32) {
        self.cut_off.send_replace(Some(CutOff { member, process }));
    }

    /// Carries on, and what was sent meanwhile comes now, as TCP has it.
    pub fn mend(&self) {
        self.cut_off.send_replace(None);
    }
}

async fn accept(
    listener: TcpListener,
    member: usize,
    upstream: u16,
    cut_off: watch::Receiver<Option<CutOff>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        connections.spawn(carry(from, member, upstream, cut_off.clone()));
    }
}

async fn carry(
    mut from: TcpStream,
    to: usize,
    upstream: u16,
    mut cut_off: watch::Receiver<Option<CutOff>>,
) -> io::Result<()> {
    let (port, ours) = (from.peer_addr()?.port(), from.local_addr()?.port());
    let is_cut = |cut_off: &Option<CutOff>| {
        cut_off.is_some_and(|it| it.member == to || process::has_connection(it.process, port, ours))
    };
    // Kept while it is cut off: a connection that ends is told of at its other end.
    let mut carried = pin!(async {
        let mut member = TcpStream::connect(("127.0.0.1", upstream)).await?;
        copy_bidirectional(&mut from, &mut member).await
    });
    loop {
        tokio::select! {
            biased;
            Ok(_) = cut_off.wait_for(is_cut) => {}
            carried = &mut carried => return carried.map(drop),
        }
        let _ = cut_off.wait_for(Option::is_none).await;
    }
}
