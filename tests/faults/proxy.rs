//! A TCP proxy between one instance and one server, which lets traffic pass or does something bad to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::resp;

/// What happens to the traffic of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rule {
    #[default]
    Pass,
    /// Whatever comes is handed on this much later.
    Delay(Duration),
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
    /// Nothing is handed on, and nobody is told, until the rule changes.
    Hold,
    /// Of the messages of a subscription, one in this many passes; everything else does too.
    DropMessages { one_passes_in: u32 },
    /// Of the messages of a subscription, only heartbeats pass; everything else does too.
    DropAllButHeartbeats,
}

/// The rules of a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rules {
    /// For connections that subscribe to Redis's channels, from their subscription on.
    pub bus: Rule,
    /// For all others.
    pub others: Rule,
}

impl Rules {
    pub fn all(rule: Rule) -> Self {
        Self { bus: rule, others: rule }
    }

    pub fn bus(rule: Rule) -> Self {
        Self { bus: rule, others: Rule::Pass }
    }
}

/// A proxy, until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    control: Arc<Control>,
    _tasks: JoinSet<()>,
}

struct Control {
    rules: watch::Sender<Rules>,
    target: watch::Sender<SocketAddr>,
}

impl Proxy {
    pub async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Arc::new(Control { rules: watch::Sender::default(), target: watch::Sender::new(target) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&control)));
        Self { address, control, _tasks: tasks }
    }

    pub fn set(&self, rules: Rules) {
        self.control.rules.send_replace(rules);
    }

    /// Closes all connections, and leads new ones to another server.
    pub fn lead_to(&self, target: SocketAddr) {
        self.control.target.send_replace(target);
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(serve(client, Arc::clone(&control)));
        while connections.try_join_next().is_some() {}
    }
}

/// Both directions of one connection, until either ends.
async fn serve(client: TcpStream, control: Arc<Control>) {
    let mut target = control.target.subscribe();
    let address = *target.borrow_and_update();
    let is_bus = watch::Sender::new(false);
    let direction = |kind| Direction { kind, rules: control.rules.subscribe(), is_bus: is_bus.subscribe() };
    if direction(Kind::Requests).is_cut() {
        return;
    }
    let Ok(server) = TcpStream::connect(address).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = direction(Kind::Requests).pump(from_client, to_server, &is_bus) => {}
        () = direction(Kind::Replies).pump(from_server, to_client, &is_bus) => {}
        () = direction(Kind::Requests).until_cut() => {}
        _ = target.changed() => {}
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Requests,
    Replies,
}

/// One direction of a connection.
struct Direction {
    kind: Kind,
    rules: watch::Receiver<Rules>,
    is_bus: watch::Receiver<bool>,
}

impl Direction {
    fn rule(&self) -> Rule {
        let rules = *self.rules.borrow();
        if *self.is_bus.borrow() { rules.bus } else { rules.others }
    }

    fn is_cut(&self) -> bool {
        self.rule() == Rule::Cut
    }

    async fn until_cut(mut self) {
        while !self.is_cut() {
            tokio::select! {
                _ = self.rules.changed() => {}
                _ = self.is_bus.changed() => {}
            }
        }
    }

    /// Hands on what comes, as the rule says that holds when it comes.
    async fn pump(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_bus: &watch::Sender<bool>) {
        // Reading goes on while something is delayed.
        let (arrived, mut waiting) = mpsc::unbounded_channel();
        let read = async move {
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                let _ = arrived.send((tokio::time::Instant::now(), buffer[..length].to_vec()));
            }
        };
        let write = async move {
            let mut rest = Vec::new();
            while let Some((at, bytes)) = waiting.recv().await {
                if self.kind == Kind::Requests && resp::subscribes(&bytes) {
                    is_bus.send_replace(true);
                }
                while self.rule() == Rule::Hold {
                    let _ = self.rules.changed().await;
                }
                if let Rule::Delay(delay) = self.rule() {
                    tokio::time::sleep_until(at + delay).await;
                }
                let passing = self.passing(bytes, &mut rest);
                if to.write_all(&passing).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(read, write);
    }

    /// What of it is handed on now. `rest` is the beginning of a reply that has not come wholly.
    fn passing(&self, bytes: Vec<u8>, rest: &mut Vec<u8>) -> Vec<u8> {
        if self.kind == Kind::Requests || !*self.is_bus.borrow() {
            return bytes;
        }
        rest.extend(bytes);
        let mut passing = Vec::new();
        while let Some(length) = Some(&rest[..]).filter(|rest| !rest.is_empty()).and_then(resp::first_reply) {
            let reply: Vec<u8> = rest.drain(..length).collect();
            if !resp::is_message(&reply) || self.lets_pass(&reply) {
                passing.extend(reply);
            }
        }
        passing
    }

    fn lets_pass(&self, message: &[u8]) -> bool {
        match self.rule() {
            Rule::DropMessages { one_passes_in } => fastrand::u32(0..one_passes_in) == 0,
            Rule::DropAllButHeartbeats => message.windows(8).any(|part| part.eq_ignore_ascii_case(b"eartbeat")),
            Rule::Pass | Rule::Delay(_) | Rule::Cut | Rule::Hold => true,
        }
    }
}
