//! A client of server-sent events that remembers where it was.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::Value;

use crate::support::{DEADLINE, Server};

/// An event as a browser would dispatch it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

/// A feed that is open.
pub struct Events {
    response: Response,
    text: String,
    /// The last id that came, with an event or without.
    pub last: Option<String>,
    pub comments: usize,
}

impl Events {
    /// Follows from now on, or from behind `last`, and waits until the server has said where that is.
    pub async fn open(server: &Server, path: &str, last: Option<&str>) -> Self {
        Self::open_as(server, path, last, None).await
    }

    /// The same by whom the value of an `Authorization` field says.
    pub async fn open_as(server: &Server, path: &str, last: Option<&str>, authorization: Option<&str>) -> Self {
        let mut request = server.request(Method::GET, path).timeout(Duration::from_secs(120));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut events = Self { response, text: String::new(), last: last.map(str::to_owned), comments: 0 };
        while events.comments == 0 {
            assert_eq!(events.block().await, Some(None), "an event came before the place");
        }
        events
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "nothing but heartbeats comes");
            if let Some(event) = self.block().await? {
                return Some(event);
            }
        }
    }

    /// The data of the next change.
    pub async fn change(&mut self) -> Value {
        let event = self.next().await.expect("the feed has ended");
        assert_eq!(event.name, "change", "{event:?}");
        event.data
    }

    /// The ids of the next changes.
    pub async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.change().await["id"].as_str().unwrap().to_owned());
        }
        ids
    }

    /// Reads blocks until there is another place, as a client does that has nothing to do.
    pub async fn beat(&mut self) {
        let before = self.comments;
        while self.comments == before {
            assert_eq!(self.block().await, Some(None));
        }
    }

    /// A block of lines: an event, or something that is none (`Some(None)`).
    async fn block(&mut self) -> Option<Option<Event>> {
        let end = loop {
            if let Some(end) = self.text.find("\n\n") {
                break end;
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await.expect("nothing comes").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        };
        let block: String = self.text.drain(..end + 2).collect();
        let (mut name, mut data) = ("message".to_owned(), None);
        for line in block.lines().filter(|line| !line.is_empty()) {
            match line.split_once(": ") {
                Some(("id", id)) => self.last = Some(id.to_owned()),
                Some(("event", event)) => name = event.to_owned(),
                Some(("data", text)) => data = Some(serde_json::from_str(text).unwrap()),
                Some(("retry", milliseconds)) => assert!(milliseconds.parse::<u64>().is_ok()),
                _ => {
                    assert!(line.starts_with(':'), "{line:?}");
                    self.comments += 1;
                }
            }
        }
        Some(data.map(|data| Event { name, data }))
    }
}
