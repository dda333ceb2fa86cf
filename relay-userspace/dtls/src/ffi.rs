//! What the `openssl` crate has no safe words for: the only module that calls OpenSSL by pointers.
//!
//! Each function takes the stream that owns the `SSL`, so that nobody else touches it during the call. The callbacks that
//! OpenSSL makes meanwhile are those of the `openssl` crate, to the stream's own `Read` and `Write`, and the timer below.
#![allow(unsafe_code, reason = "calls C functions, each on an object whose owner is borrowed for the call")]

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use foreign_types::ForeignTypeRef as _;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslContextBuilder, SslRef, SslStream};
use openssl_sys as sys;

/// `DTLS_CTRL_GET_TIMEOUT` of OpenSSL's `ssl.h`, a part of its ABI.
const GET_TIMEOUT: c_int = 73;
/// `DTLS_CTRL_HANDLE_TIMEOUT`.
const HANDLE_TIMEOUT: c_int = 74;
/// `SSL_CTRL_SET_MAX_CERT_LIST`.
const SET_MAX_CERT_LIST: c_int = 51;
/// OpenSSL doubles its timer up to a minute (RFC 6347 section 4.2.4.1); so does ours.
const LONGEST_TIMEOUT_MICROS: c_uint = 60_000_000;

/// OpenSSL's `BIO_ADDR`, which only it looks into.
#[repr(C)]
struct BioAddress([u8; 0]);

unsafe extern "C" {
    fn DTLSv1_listen(ssl: *mut sys::SSL, peer: *mut BioAddress) -> c_int;
    fn DTLS_set_timer_cb(ssl: *mut sys::SSL, callback: extern "C" fn(*mut sys::SSL, c_uint) -> c_uint);
    fn SSL_alloc_buffers(ssl: *mut sys::SSL) -> c_int;
    fn SSL_free_buffers(ssl: *mut sys::SSL) -> c_int;
    fn SSL_SESSION_get_max_fragment_length(session: *const sys::SSL_SESSION) -> u8;
    fn BIO_ADDR_new() -> *mut BioAddress;
    fn BIO_ADDR_free(address: *mut BioAddress);
}

/// Comes before every call that may read or write records. Says whether there is memory for it.
///
/// OpenSSL takes what it finds in the thread's queue of errors for the reason of its next failure. And it writes to the
/// buffers for records without a look whether there are any: it would see to that by itself only before it reads.
pub(crate) fn prepare<S>(stream: &mut SslStream<S>) -> bool {
    clear_errors();
    // SAFETY: the `SSL` is the borrowed stream's; buffers that are there stay.
    unsafe { SSL_alloc_buffers(stream.ssl().as_ptr()) == 1 }
}

/// Empties this thread's queue of errors.
pub(crate) fn clear_errors() {
    // SAFETY: touches nothing but the thread's own queue.
    unsafe { sys::ERR_clear_error() }
}

/// Reads a ClientHello with a cookie from the stream, and makes the state machine go on from there: message 1, and the
/// record number of the ClientHello (RFC 6347 section 4.2.1). The stream has to give the same datagram again afterwards.
pub(crate) fn listen<S>(stream: &mut SslStream<S>) -> bool {
    // SAFETY: the address is a new one that only this call sees, and is freed once; the `SSL` is the borrowed stream's.
    unsafe {
        let peer = BIO_ADDR_new();
        if peer.is_null() {
            return false;
        }
        let listened = DTLSv1_listen(stream.ssl().as_ptr(), peer);
        BIO_ADDR_free(peer);
        listened == 1
    }
}

/// How long until a flight has to be sent again, if one waits for an answer.
pub(crate) fn timeout<S>(stream: &SslStream<S>) -> Option<Duration> {
    let mut left = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: this control writes one timeval to a local of ours, and changes nothing of the `SSL`.
    let running = unsafe { sys::SSL_ctrl(stream.ssl().as_ptr(), GET_TIMEOUT, 0, (&raw mut left).cast::<c_void>()) };
    let seconds = Duration::from_secs(u64::try_from(left.tv_sec).unwrap_or(0));
    (running == 1).then(|| seconds + Duration::from_micros(u64::try_from(left.tv_usec).unwrap_or(0)))
}

/// Sends the last flight again if it is time. An error says that it has been sent often enough.
pub(crate) fn handle_timeout<S>(stream: &mut SslStream<S>) -> Result<(), ErrorStack> {
    // SAFETY: this control has no argument.
    let handled = unsafe { sys::SSL_ctrl(stream.ssl().as_ptr(), HANDLE_TIMEOUT, 0, ptr::null_mut()) };
    if handled < 0 { Err(ErrorStack::get()) } else { Ok(()) }
}

/// Frees the buffers for records until [`prepare`], which are most of what a session takes.
///
/// Only for a stream that has just said that it waits for a datagram: OpenSSL before 3.0.14 also frees a buffer that
/// holds an unread piece of a record (CVE-2024-4741).
pub(crate) fn free_buffers<S>(stream: &mut SslStream<S>) {
    // SAFETY: the `SSL` is the borrowed stream's; OpenSSL itself refuses while datagrams are in the buffers.
    unsafe { SSL_free_buffers(stream.ssl().as_ptr()) };
}

/// The most plaintext that the peer takes in a record, in bytes, if it has asked for a limit (RFC 6066 section 4).
pub(crate) fn max_fragment_length(ssl: &SslRef) -> Option<usize> {
    let session = ssl.session()?;
    // SAFETY: reads a field of a session that `ssl` keeps alive.
    match unsafe { SSL_SESSION_get_max_fragment_length(session.as_ptr()) } {
        code @ 1..=4 => Some(256 << code),
        _ => None,
    }
}

/// Bounds what is kept of messages that come in pieces or too early, of which the largest could be a certificate chain.
pub(crate) fn set_max_certificates_len(context: &mut SslContextBuilder, bytes: c_long) {
    // SAFETY: this control takes a number; the context is borrowed and no `SSL` has been made of it.
    unsafe { sys::SSL_CTX_ctrl(context.as_ptr(), SET_MAX_CERT_LIST, bytes, ptr::null_mut()) };
}

/// Lets OpenSSL choose the group of DHE by the strength of the certificate.
pub(crate) fn choose_dh_group(context: &mut SslContextBuilder) {
    // SAFETY: this control takes a number; the context is borrowed and no `SSL` has been made of it.
    unsafe { sys::SSL_CTX_ctrl(context.as_ptr(), sys::SSL_CTRL_SET_DH_AUTO, 1 as c_long, ptr::null_mut()) };
}

/// Makes the first retransmission of a handshake come after `first` instead of a second.
pub(crate) fn set_first_timeout(ssl: &mut SslRef, first: Duration) -> Result<(), ErrorStack> {
    let micros = c_uint::try_from(first.as_micros()).unwrap_or(LONGEST_TIMEOUT_MICROS).clamp(1, LONGEST_TIMEOUT_MICROS);
    ssl.set_ex_data(first_timeout_index()?, FirstTimeout(micros));
    // SAFETY: the callback is a function, which lives as long as the program.
    unsafe { DTLS_set_timer_cb(ssl.as_ptr(), next_timeout) };
    Ok(())
}

/// The first timeout of an `SSL`, in microseconds, among its application data.
struct FirstTimeout(c_uint);

fn first_timeout_index() -> Result<Index<Ssl, FirstTimeout>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, FirstTimeout>> = OnceLock::new();
    match INDEX.get() {
        Some(index) => Ok(*index),
        None => Ssl::new_ex_index().map(|index| *INDEX.get_or_init(|| index)),
    }
}

/// The timer after one of `micros`, 0 for the first. Must not panic: it is called from C.
extern "C" fn next_timeout(ssl: *mut sys::SSL, micros: c_uint) -> c_uint {
    if micros != 0 {
        return micros.saturating_mul(2).min(LONGEST_TIMEOUT_MICROS);
    }
    // SAFETY: OpenSSL passes the `SSL` that it works on; reading its application data is allowed in a callback.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    let first = first_timeout_index().ok().and_then(|index| ssl.ex_data(index));
    first.map_or(1_000_000, |first| first.0)
}
