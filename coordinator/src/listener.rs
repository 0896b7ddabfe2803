//! Accepts TCP connections: counts them, does the TLS handshake, and hands them to gRPC.
//!
//! At most `max_connections` are open at a time, and at most a quarter of them without a client
//! certificate. Such a caller can do nothing but enrol, so its connection is cut after a minute.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a caller without a certificate may stay: enrolling takes seconds.
const ANONYMOUS_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after the system could not give a connection, for example for want of file handles.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// An open connection with the permits it counts against.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    /// When it is cut; `None` for a caller with a certificate.
    deadline: Option<Pin<Box<Sleep>>>,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Connected for Connection {
    type ConnectInfo = TlsConnectInfo<TcpConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Accepts connections until the stream that it returns is dropped.
pub fn accept(
    listener: TcpListener,
    config: ServerConfig,
    max_connections: u32,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(16);
    let acceptor = Acceptor {
        tls: TlsAcceptor::from(Arc::new(config)),
        anonymous: Arc::new(Semaphore::new((max_connections as usize / 4).max(1))),
        ready,
    };
    let permits = Arc::new(Semaphore::new(max_connections as usize));
    tokio::spawn(async move {
        loop {
            if permits.available_permits() == 0 {
                tracing::warn!(
                    max_connections,
                    "all connections are taken, further ones wait; raise `max_connections`"
                );
            }
            let next = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((permit, listener.accept().await?.0))
            };
            let next = tokio::select! {
                next = next => next,
                () = acceptor.ready.closed() => return,
            };
            match next {
                Ok((permit, tcp)) => {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move { acceptor.handshake(tcp, permit).await });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

#[derive(Clone)]
struct Acceptor {
    tls: TlsAcceptor,
    anonymous: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Connection>>,
}

impl Acceptor {
    async fn handshake(self, tcp: TcpStream, permit: OwnedSemaphorePermit) {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "small messages may be delayed");
        }
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.tls.accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        };
        let mut permits = vec![permit];
        let mut deadline = None;
        if stream.get_ref().1.peer_certificates().is_none() {
            let Ok(permit) = self.anonymous.try_acquire_owned() else {
                return tracing::warn!("too many connections without a certificate, one is cut");
            };
            permits.push(permit);
            deadline = Some(Box::pin(tokio::time::sleep_until(Instant::now() + ANONYMOUS_TIMEOUT)));
        }
        // Nobody takes it once the server has ended.
        let _ = self.ready.send(Ok(Connection { stream, deadline, _permits: permits })).await;
    }
}
