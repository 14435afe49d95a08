//! Which processors the sides of a bench run on. Left to the scheduler, a process that waits for a server on its machine runs now beside
//! it and now on the same processor. To wake it costs three times what it does itself, or nothing, and a bench measures the scheduler.

use std::process::Command;

use tokio_postgres::Client;

/// Two processors, of those that this process may run on.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    pub first: usize,
    pub second: usize,
}

impl Processors {
    pub fn allowed() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let mut processors = list.trim().split(',').flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<usize>().unwrap()..=last.parse().unwrap()
        });
        let mut next = || processors.next().expect("this bench needs two processors");
        Self { first: next(), second: next() }
    }
}

/// Keeps all threads of a process on one processor.
pub fn keep(process: u32, processor: usize) {
    let status = Command::new("taskset").args(["-acp", &processor.to_string(), &process.to_string()]).output().unwrap().status;
    assert!(status.success(), "taskset: {status}");
}

/// The same for the PostgreSQL server at the other end, its sessions and those to come.
pub async fn keep_server(client: &Client, processor: usize) {
    let session: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let parent = |process: u32| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()
    };
    let server = parent(session.try_into().unwrap()).expect("PostgreSQL is on another machine");
    // Who is forked from now on stays there as well.
    keep(server, processor);
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|process| parent(*process) == Some(server)).for_each(|process| keep(process, processor));
}
