//! Servers in processes of their own, so that their CPU time and memory can be read from the system. A bench binary
//! starts itself again with a role in the environment.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

const ROLE: &str = "TERRACE_BENCH_ROLE";

/// The role this process was started with, if it is a child.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// A child; it ends when this is dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts this binary again as `role` with `arguments`, and waits for its address.
    pub fn start(role: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap_or_else(|_| panic!("{role} said {line:?} instead of its address"));
        Self { child, address }
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system CPU time so far, in seconds (`/proc/PID/stat`, fields 14 and 15, in ticks of 10 ms).
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        ticks as f64 / 100.0
    }

    /// What comes of `work`, and the CPU seconds of the process meanwhile.
    pub fn cpu_during<T>(&self, work: impl FnOnce() -> T) -> (T, f64) {
        let before = self.cpu_seconds();
        let done = work();
        (done, self.cpu_seconds() - before)
    }

    /// A line of `/proc/PID/status`, in KiB.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child ends when its standard input does.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// In the child: tells the parent the address, and waits until the parent is done.
pub fn serve_until_parent_ends(address: SocketAddr) {
    println!("{address}");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}
