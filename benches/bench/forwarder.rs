//! What stands between the program and the engine.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Forwards to the engine, and calls a function with whatever the program sends before it is passed on. Returns the
/// URL to use instead.
pub fn forward(engine_url: &str, before: impl Fn(&[u8]) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    let url = format!("http://{}", listener.local_addr().expect("a bound port"));
    let engine = engine_url.strip_prefix("http://").expect("an engine without TLS");
    let engine = engine.trim_end_matches('/').to_owned();
    let before = Arc::new(before);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&engine) else { continue };
            let ends = [&client, &server].map(|end| end.try_clone().expect("another handle"));
            let [to_client, from_server] = ends;
            let before = Arc::clone(&before);
            thread::spawn(move || copy(client, server, &*before));
            thread::spawn(move || copy(from_server, to_client, |_| ()));
        }
    });
    url
}

fn copy(mut from: TcpStream, mut to: TcpStream, before: impl Fn(&[u8])) {
    let mut buffer = [0; 16_384];
    loop {
        // An error is an end, too.
        let count = from.read(&mut buffer).unwrap_or(0);
        before(&buffer[..count]);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}
