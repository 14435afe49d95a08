//! A proxy that replaces one text by another in what a server answers: a real server that says it is of another version.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy for a port of this machine. Its threads end with their connections, the last one with the tests.
pub struct Rewriting {
    port: u16,
    to: Arc<Mutex<String>>,
}

impl Rewriting {
    /// Replaces `from` by `to`, which is as long.
    pub fn start(server: u16, from: &str, to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (from, to) = (from.to_owned(), Arc::new(Mutex::new(to.to_owned())));
        let current = Arc::clone(&to);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(up, down, |bytes| bytes));
                let (from, to) = (from.clone(), Arc::clone(&current));
                thread::spawn(move || pass(server, client, |bytes| replace(bytes, &from, &to.lock().unwrap())));
            }
        });
        Self { port, to }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Replaces it by another text from now on.
    pub fn rewrite_to(&self, to: &str) {
        to.clone_into(&mut self.to.lock().unwrap());
    }
}

/// What is to be replaced comes in one piece: an answer of a few hundred bytes.
fn pass(mut from: TcpStream, mut to: TcpStream, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&change(buffer[..length].to_vec())).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn replace(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}
