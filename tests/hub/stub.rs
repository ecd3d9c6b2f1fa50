//! A hub on 127.0.0.1 that answers as told, fault by fault.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_get(&self) -> bool {
        self.method == "GET"
    }

    /// The first byte of `Range: bytes=N-`.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What goes over the wire: bytes and pauses, then the connection is closed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    Wait(Duration),
}

impl Answer {
    /// A status line and headers, exactly these and `Connection: close`.
    pub(crate) fn head(status: u16, headers: &[(&str, &str)]) -> Self {
        let mut text = format!("HTTP/1.1 {status} Stub\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        Self::raw(text.as_bytes())
    }

    /// A whole answer, with its length.
    pub(crate) fn full(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let length = body.len().to_string();
        let mut all = headers.to_vec();
        all.push(("Content-Length", &length));
        Self::head(status, &all).send(body)
    }

    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self::default().send(bytes)
    }

    pub(crate) fn send(mut self, bytes: &[u8]) -> Self {
        self.0.push(Step::Send(bytes.to_vec()));
        self
    }

    pub(crate) fn wait(mut self, pause: Duration) -> Self {
        self.0.push(Step::Wait(pause));
        self
    }
}

type Script = dyn Fn(&Request, usize) -> Answer + Send + Sync;

/// A running server. It ends when dropped.
pub(crate) struct Stub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
}

impl Stub {
    /// Serves with `script`, which is told how many requests of the same method came before.
    pub(crate) fn start(script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let (seen_by_server, told_to_end) = (Arc::clone(&seen), Arc::clone(&ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if told_to_end.load(Ordering::SeqCst) {
                    return;
                }
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen_by_server));
                let told_to_end = Arc::clone(&told_to_end);
                std::thread::spawn(move || serve(&stream, &*script, &seen, &told_to_end));
            }
        });
        Self { address, seen, ended }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic in the server").clone()
    }

    /// The GET requests for content so far.
    pub(crate) fn gets(&self) -> Vec<Request> {
        self.seen()
            .into_iter()
            .filter(|request| request.is_get() && !request.path.starts_with("/api/"))
            .collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: &TcpStream, script: &Script, seen: &Mutex<Vec<Request>>, ended: &AtomicBool) {
    let Some(request) = read_request(stream) else { return };
    let before = {
        let mut seen = seen.lock().expect("no panic in the server");
        let before = seen.iter().filter(|other| other.method == request.method).count();
        seen.push(request.clone());
        before
    };
    for step in script(&request, before).0 {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Step::Wait(pause) => {
                let mut left = pause;
                while !left.is_zero() && !ended.load(Ordering::SeqCst) {
                    let nap = left.min(Duration::from_millis(20));
                    std::thread::sleep(nap);
                    left -= nap;
                }
            }
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect();
    Some(Request { method, path, headers })
}
