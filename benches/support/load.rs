//! A closed loop of HTTP/1.1 requests over kept connections, with as little work per request as a client can do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::Process;

/// What a run measured.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub requests: u64,
    pub elapsed: Duration,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// Requests `path` over `connections` connections for `duration`. Every answer must be a 200.
pub fn run(address: SocketAddr, path: &str, headers: &str, connections: usize, duration: Duration) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
    runtime.block_on(async {
        let started = Instant::now();
        let end = started + duration;
        let loops: Vec<_> = (0..connections).map(|_| tokio::spawn(requests(address, request.clone(), end))).collect();
        let mut total = 0;
        for one in loops {
            total += one.await.unwrap();
        }
        Run { requests: total, elapsed: started.elapsed() }
    })
}

/// The same against `server`, and its CPU seconds per request.
pub fn costed(server: &Process, path: &str, headers: &str, connections: usize, duration: Duration) -> (Run, f64) {
    let (run, spent) = server.cpu_during(|| run(server.address, path, headers, connections, duration));
    (run, spent / run.requests as f64)
}

/// One request on a connection of its own: the body.
pub fn fetch(address: SocketAddr, path: &str) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(address).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let (head, length) = connection.exchange(request.as_bytes()).await;
        connection.buffer[head..length].to_vec()
    })
}

async fn requests(address: SocketAddr, request: String, end: Instant) -> u64 {
    let mut connection = Connection::open(address).await;
    let mut count = 0;
    while Instant::now() < end {
        connection.exchange(request.as_bytes()).await;
        count += 1;
    }
    count
}

/// A kept connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 1 << 20] }
    }

    /// The body of `path`.
    pub async fn get(&mut self, path: &str) -> &[u8] {
        let (head, end) = self.exchange(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes()).await;
        &self.buffer[head..end]
    }

    /// Merges `patch` into the record at `path`.
    pub async fn patch(&mut self, path: &str, patch: &str) {
        let head = "content-type: application/merge-patch+json\r\nhost: bench";
        let request = format!("PATCH {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{patch}", patch.len());
        self.exchange(request.as_bytes()).await;
    }

    /// Sends a request and reads its answer into the buffer; returns where the body begins and ends.
    async fn exchange(&mut self, request: &[u8]) -> (usize, usize) {
        self.stream.write_all(request).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            filled += read;
            let Some(head) = find(&self.buffer[..filled], b"\r\n\r\n") else { continue };
            assert!(self.buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.buffer[..head]));
            let end = head + 4 + content_length(&self.buffer[..head]);
            while filled < end {
                filled += self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            }
            return (head + 4, end);
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn content_length(head: &[u8]) -> usize {
    let at = find(head, b"content-length: ").expect("no content-length") + 16;
    head[at..].iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

/// Requests every one of `paths` once, over `connections` connections.
pub fn each(address: SocketAddr, connections: usize, paths: impl Iterator<Item = String>) {
    let paths = std::sync::Arc::new(std::sync::Mutex::new(paths.collect::<std::collections::VecDeque<_>>()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let loops: Vec<_> = (0..connections)
            .map(|_| {
                let paths = std::sync::Arc::clone(&paths);
                tokio::spawn(async move {
                    let mut connection = Connection::open(address).await;
                    let next = || paths.lock().unwrap().pop_front();
                    while let Some(path) = next() {
                        connection.exchange(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await;
                    }
                })
            })
            .collect();
        for one in loops {
            one.await.unwrap();
        }
    });
}
