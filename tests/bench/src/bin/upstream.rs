//! The application behind a proxy: takes a request in, says 200, and costs next to nothing. It prints its port.

use bench::http1::Connection;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\nreceived\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let mut connection = Connection::new(listener.accept().await?.0)?;
        tokio::spawn(async move {
            while let Some(_line) = connection.message().await? {
                connection.write(ANSWER).await?;
            }
            std::io::Result::Ok(())
        });
    }
}
