//! The proxy between client and server does what the runs rely on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltran_tests::{Flow, Proxy, Way, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Sends everything back, and keeps what came, of all connections together, in its order.
async fn echo() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(Mutex::new(Vec::new()));
    let all = came.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let all = all.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    all.lock().unwrap().extend(&buffer[..n]);
                    if stream.write_all(&buffer[..n]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, came)
}

async fn came(all: &Mutex<Vec<u8>>, expected: &[u8]) {
    let what = String::from_utf8_lossy(expected).into_owned();
    eventually(&what, async || (*all.lock().unwrap() == expected).then_some(())).await;
}

async fn answer(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn bytes_pass_both_ways_and_an_end_is_handed_on() {
    let (server, _) = echo().await;
    let proxy = Proxy::to(server).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"one").await.unwrap();
    answer(&mut client, b"one").await;
    assert_eq!((proxy.carried(Way::There), proxy.carried(Way::Back), proxy.connections()), (3, 3, 1));
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    eventually("no connection", async || (proxy.connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_cut_ends_what_is_there_and_not_what_comes() {
    let (server, _) = echo().await;
    let proxy = Proxy::to(server).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        answer(&mut client, b"x").await;
        clients.push(client);
    }
    proxy.cut();
    for client in &mut clients {
        assert!(matches!(client.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    }
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    next.write_all(b"next").await.unwrap();
    answer(&mut next, b"next").await;
}

#[tokio::test]
async fn what_is_held_on_its_way_there_comes_after_what_is_sent_later() {
    let (server, all) = echo().await;
    let proxy = Proxy::to(server).await;
    let mut held = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.set(Way::There, Flow::Held);
    held.write_all(b"held").await.unwrap();
    let mut direct = TcpStream::connect(server).await.unwrap();
    direct.write_all(b"direct ").await.unwrap();
    answer(&mut direct, b"direct ").await;
    proxy.set(Way::There, Flow::Open);
    answer(&mut held, b"held").await;
    came(&all, b"direct held").await;
}

#[tokio::test]
async fn an_answer_that_is_held_and_cut_is_lost_though_the_question_came() {
    let (server, all) = echo().await;
    let proxy = Proxy::to(server).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.set(Way::Back, Flow::Held);
    client.write_all(b"question").await.unwrap();
    came(&all, b"question").await;
    proxy.cut();
    proxy.set(Way::Back, Flow::Open);
    assert!(matches!(client.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    assert_eq!(proxy.carried(Way::Back), 0);
}

#[tokio::test]
async fn what_is_late_keeps_its_order_and_is_overtaken() {
    let (server, all) = echo().await;
    let proxy = Proxy::to(server).await;
    proxy.set(Way::There, Flow::Late(Duration::from_secs(2)));
    let mut late = TcpStream::connect(proxy.address()).await.unwrap();
    late.write_all(b"late").await.unwrap();
    late.write_all(b"r").await.unwrap();
    let mut direct = TcpStream::connect(server).await.unwrap();
    direct.write_all(b"direct ").await.unwrap();
    came(&all, b"direct later").await;
}

#[tokio::test]
async fn a_server_that_is_away_is_told_by_a_closed_connection() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::to(away).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(matches!(client.read(&mut [0; 8]).await, Ok(0) | Err(_)));
}
