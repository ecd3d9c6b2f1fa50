//! How an event loop learns of new events: a socket that becomes readable, and the keys of the streams with news.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use super::gil;

#[cfg(unix)]
type Socket = std::os::unix::net::UnixStream;
#[cfg(windows)]
type Socket = std::net::TcpStream;

/// The worker's side: rings for a stream, from any thread, without blocking.
pub(super) struct Bell {
    socket: Socket,
    /// Open as long as somebody may ring: where a program has given SIGPIPE its default back, a ring for a loop that is gone
    /// would end the process.
    reader: Socket,
    /// Whether a byte is on its way that the loop has not answered yet.
    rung: AtomicBool,
    keys: Mutex<Vec<u64>>,
}

impl Bell {
    /// Notes that the stream `key` has news, and wakes the loop unless it is being woken already.
    pub(super) fn ring(&self, key: u64) {
        {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A loop that is gone needs no waking, and one byte always fits into an empty socket.
            let _ = (&self.socket).write(&[1]);
        }
    }

    /// The keys since the last call. The flag falls first, so that a key noted meanwhile rings again.
    fn take_keys(&self) -> Vec<u64> {
        self.rung.store(false, Ordering::Release);
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The event loop's side: `phicandle._phicandle.RawWaker`.
#[pyclass(frozen, module = "phicandle._phicandle")]
pub(super) struct RawWaker {
    bell: Arc<Bell>,
}

impl RawWaker {
    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }
}

#[pymethods]
impl RawWaker {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        gil::guard(py, || {
            let (writer, reader) = pair().map_err(PyOSError::new_err)?;
            let bell = Bell { socket: writer, reader, rung: AtomicBool::new(false), keys: Mutex::default() };
            Ok(Self { bell: Arc::new(bell) })
        })
    }

    /// The reading socket, as what `socket.socket(fileno=...)` takes. The caller closes it.
    fn socket(&self, py: Python<'_>) -> PyResult<i64> {
        gil::guard(py, || number(self.bell.reader.try_clone().map_err(PyOSError::new_err)?))
    }

    /// The keys of the streams that have had news since the last call.
    fn take_keys(&self) -> Vec<u64> {
        self.bell.take_keys()
    }
}

#[cfg(unix)]
fn pair() -> io::Result<(Socket, Socket)> {
    let (writer, reader) = Socket::pair()?;
    writer.set_nonblocking(true)?;
    Ok((writer, reader))
}

/// Windows has no socket pairs: two ends of a connection over loopback. A stranger who connects in between is refused.
#[cfg(windows)]
fn pair() -> io::Result<(Socket, Socket)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let writer = Socket::connect(listener.local_addr()?)?;
    loop {
        let (reader, peer) = listener.accept()?;
        if peer == writer.local_addr()? {
            writer.set_nonblocking(true)?;
            writer.set_nodelay(true)?;
            return Ok((writer, reader));
        }
    }
}

#[cfg(unix)]
fn number(socket: Socket) -> PyResult<i64> {
    use std::os::fd::IntoRawFd;
    Ok(i64::from(socket.into_raw_fd()))
}

#[cfg(windows)]
fn number(socket: Socket) -> PyResult<i64> {
    use std::os::windows::io::IntoRawSocket;
    Ok(i64::try_from(socket.into_raw_socket())?)
}
