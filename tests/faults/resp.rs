//! Just enough of Redis's protocol to tell one reply from the next, and what is a message of a subscription.

/// How long the first whole reply in `bytes` is; `None` if its end has not come yet.
pub fn first_reply(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let count = || std::str::from_utf8(&bytes[1..line - 2]).unwrap().parse::<i64>().unwrap();
    match bytes[0] {
        b'$' | b'=' | b'!' => {
            let whole = usize::try_from(count()).map_or(line, |length| line + length + 2);
            (whole <= bytes.len()).then_some(whole)
        }
        b'*' | b'>' | b'~' => parts(bytes, line, usize::try_from(count()).unwrap_or(0)),
        b'%' => parts(bytes, line, 2 * usize::try_from(count()).unwrap_or(0)),
        _ => Some(line),
    }
}

fn parts(bytes: &[u8], mut end: usize, count: usize) -> Option<usize> {
    for _ in 0..count {
        end += first_reply(bytes.get(end..).filter(|rest| !rest.is_empty())?)?;
    }
    Some(end)
}

/// Whether a whole reply is a message that somebody published.
pub fn is_message(reply: &[u8]) -> bool {
    reply.starts_with(b"*3\r\n$7\r\nmessage\r\n") || reply.starts_with(b">3\r\n$7\r\nmessage\r\n")
}

/// Whether what a client sends makes its connection one of the bus.
pub fn subscribes(request: &[u8]) -> bool {
    let word = b"SUBSCRIBE\r\n";
    request.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

#[test]
fn replies_are_told_apart() {
    let message = b"*3\r\n$7\r\nmessage\r\n$3\r\nbus\r\n$5\r\nhe\r\nl\r\n";
    let push = b">3\r\n$7\r\nmessage\r\n$3\r\nbus\r\n$2\r\nhi\r\n";
    let others: [&[u8]; 6] = [
        b"+OK\r\n",
        b":5\r\n",
        b"$-1\r\n",
        b"*0\r\n",
        b"%1\r\n+a\r\n*2\r\n:1\r\n$0\r\n\r\n",
        b">3\r\n$9\r\nsubscribe\r\n$3\r\nbus\r\n:1\r\n",
    ];
    for reply in others.into_iter().chain([&message[..], &push[..]]) {
        let followed = [reply, b"+PONG\r\n"].concat();
        assert_eq!(first_reply(&followed), Some(reply.len()));
        assert!((0..reply.len()).all(|cut| first_reply(&reply[..cut]).is_none()));
    }
    assert!(is_message(message) && is_message(push) && !others.into_iter().any(is_message));
    assert!(subscribes(b"*2\r\n$9\r\nSUBSCRIBE\r\n$3\r\nbus\r\n") && !subscribes(b"*1\r\n$4\r\nPING\r\n"));
}
