//! Where the admin interface listens.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::socket::{AdminListener, SocketError};
use crate::config::{AdminAddr, AdminSocket};
use crate::service::Passed;

/// Where the admin interface listens.
#[derive(Debug)]
pub struct Listeners {
    pub(super) tcp: Option<TcpListener>,
    pub(super) unix: Option<AdminListener>,
}

/// Why the admin interface cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AdminError(Reason);

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("--admin {0}: {1}; choose another address, or `off`")]
    Tcp(SocketAddr, io::Error),
    #[error("--admin-socket {0}: {1}")]
    Unix(PathBuf, SocketError),
    #[error("the socket that the service manager passes: {0}")]
    Passed(io::Error),
}

impl Listeners {
    /// Opens them, but for those that are open already. A default socket that cannot be had is left out, and the log says
    /// so.
    pub async fn bind(tcp: AdminAddr, socket: &AdminSocket, passed: Passed) -> Result<Self, AdminError> {
        let failed = |error| AdminError(Reason::Passed(error));
        let tcp = match (passed.tcp, tcp) {
            (Some(listener), _) => Some(TcpListener::from_std(listener).map_err(failed)?),
            (None, AdminAddr::Off) => None,
            (None, AdminAddr::At(address)) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|error| AdminError(Reason::Tcp(address, error)))?)
            }
        };
        let unix = match (passed.unix, socket) {
            (Some(listener), _) => Some(AdminListener::passed(listener).map_err(failed)?),
            (None, AdminSocket::Off) => None,
            (None, AdminSocket::At(path)) => {
                let bound = AdminListener::bind(path);
                Some(bound.map_err(|error| AdminError(Reason::Unix(path.clone(), error)))?)
            }
            (None, AdminSocket::Default(path)) => match AdminListener::bind(path) {
                Ok(listener) => Some(listener),
                Err(error) => {
                    let path = path.display();
                    tracing::info!(
                        "no admin socket at {path}: {error}; `hairpin status` and the like need --admin-socket"
                    );
                    None
                }
            },
        };
        Ok(Self { tcp, unix })
    }

    /// Where browsers find what is served over TCP. Of all addresses, they are told this host's own.
    pub fn origin(&self) -> Option<String> {
        let address = self.tcp.as_ref()?.local_addr().ok()?;
        Some(if address.ip().to_canonical().is_unspecified() {
            format!("http://localhost:{}", address.port())
        } else {
            format!("http://{address}")
        })
    }
}
