//! The messages of the driver protocol V1_0, as the server says and reads them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::MessageDigest;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

/// The server's side of the handshake; whether the user is let in.
pub(super) fn log_in(
    input: &mut BufReader<TcpStream>,
    out: &mut TcpStream,
    users: &BTreeMap<String, String>,
    piece: usize,
) -> std::io::Result<bool> {
    let mut magic = [0; 4];
    input.read_exact(&mut magic)?;
    let mut say = |message: Value| write(out, format!("{message}\0").as_bytes(), piece);
    if magic != [0xC3, 0xBD, 0xC2, 0x34] {
        write(out, b"ERROR: Received an unsupported protocol version.\0", piece);
        return Ok(false);
    }
    say(json!({"max_protocol_version": 0, "min_protocol_version": 0, "server_version": "2.4.4", "success": true}));
    let first = message(input)?;
    let first = first["authentication"].as_str().unwrap_or_default().trim_start_matches("n,,").to_owned();
    let (user, nonce) = first.strip_prefix("n=").and_then(|rest| rest.split_once(",r=")).unwrap_or_default();
    let password = users.get(&user.replace("=2C", ",").replace("=3D", "=")).cloned();
    let iterations = if password.as_deref() == Some("") { 1 } else { 4096 };
    let salt = [7; 16];
    let server_first = format!("r={nonce}serverpart,s={},i={iterations}", STANDARD.encode(salt));
    say(json!({"authentication": server_first, "success": true}));
    let last = message(input)?;
    let last = last["authentication"].as_str().unwrap_or_default();
    let Some(password) = password else {
        say(json!({"error": "Unknown user", "error_code": 17, "success": false}));
        return Ok(false);
    };
    let (bare, proof) = last.rsplit_once(",p=").unwrap_or_default();
    let exchanged = format!("{first},{server_first},{bare}");
    let mut salted = [0; 32];
    pbkdf2_hmac(password.as_bytes(), &salt, iterations, MessageDigest::sha256(), &mut salted)?;
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&sha256(&client_key), exchanged.as_bytes());
    let expected: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
    if STANDARD.encode(expected) != proof {
        say(json!({"error": "Wrong password", "error_code": 12, "success": false}));
        return Ok(false);
    }
    let proof = STANDARD.encode(hmac(&hmac(&salted, b"Server Key"), exchanged.as_bytes()));
    say(json!({"authentication": format!("v={proof}"), "success": true}));
    Ok(true)
}

/// Sends a response.
pub(super) fn send(out: &mut TcpStream, token: u64, response: &Value, piece: usize) {
    send_body(out, token, response.to_string().as_bytes(), piece);
}

/// Sends elements of a changefeed, each as it is.
pub(super) fn send_elements(out: &mut TcpStream, token: u64, elements: &[Vec<u8>], piece: usize) {
    let body = [&b"{\"t\":3,\"r\":["[..], &elements.join(&b','), b"],\"n\":[1,5]}"].concat();
    send_body(out, token, &body, piece);
}

fn send_body(out: &mut TcpStream, token: u64, body: &[u8], piece: usize) {
    let mut bytes = token.to_le_bytes().to_vec();
    bytes.extend_from_slice(&u32::try_from(body.len()).expect("a short response").to_le_bytes());
    bytes.extend_from_slice(body);
    write(out, &bytes, piece);
}

fn write(out: &mut TcpStream, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        // Fails where the client is gone; its connection then ends.
        drop(out.write_all(piece));
    }
}

/// Whether both are the same connection.
pub(super) fn is_same(left: &TcpStream, right: &TcpStream) -> bool {
    left.peer_addr().ok() == right.peer_addr().ok()
}

fn message(input: &mut BufReader<TcpStream>) -> std::io::Result<Value> {
    let mut bytes = Vec::new();
    input.read_until(0, &mut bytes)?;
    bytes.pop();
    Ok(serde_json::from_slice(&bytes)?)
}

/// Waits for the next query; returns its token too.
pub(super) fn query(input: &mut BufReader<TcpStream>) -> std::io::Result<(u64, Value)> {
    let (mut token, mut length) = ([0; 8], [0; 4]);
    input.read_exact(&mut token)?;
    input.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    input.read_exact(&mut body)?;
    Ok((u64::from_le_bytes(token), serde_json::from_slice(&body)?))
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = PKey::hmac(key).expect("a key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
    signer.sign_oneshot_to_vec(message).expect("a code")
}
