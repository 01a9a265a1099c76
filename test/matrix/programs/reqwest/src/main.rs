//! reqwest in the matrix: BASE CASE… → one JSON line a case, as the client's user would see it.
use reqwest::blocking::{Body, Client, RequestBuilder};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read};

type Found = Result<String, Box<dyn std::error::Error>>;

fn own(request: RequestBuilder) -> RequestBuilder {
    request.header("Authorization", "Bearer placeholder-of-the-agent")
}

fn sse(http: &Client, base: &str) -> Found {
    let mut seen: Vec<String> = Vec::new();
    let answer = own(http.get(format!("{base}/sse"))).send()?;
    for line in BufReader::new(answer).lines() {
        let line = line?;
        if let Some(event) = line.strip_prefix("data:") {
            seen.push(format!("{:?}", event.trim()));
            if seen.len() == 1 {
                own(http.get(format!("{base}/seen"))).send()?;
            }
        }
    }
    Ok(format!("{{\"events\":[{}]}}", seen.join(",")))
}

fn run(http: &Client, base: &str, case: &str) -> Found {
    match case {
        "get" => Ok(own(http.get(format!("{base}/get"))).send()?.text()?),
        "post" => {
            let request = own(http.post(format!("{base}/post"))).header("Content-Type", "application/json");
            Ok(request.body("{\"from\":\"reqwest\"}").send()?.text()?)
        }
        "upload" => {
            // Of unknown length, so that it is streamed.
            let body = Body::new(std::io::repeat(b'u').take(96 * 32768));
            Ok(own(http.post(format!("{base}/upload"))).body(body).send()?.text()?)
        }
        "download" => {
            let bytes = own(http.get(format!("{base}/download"))).send()?.bytes()?;
            let sum = Sha256::digest(&bytes);
            let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(format!("{{\"bytes\":{},\"sha256\":\"{hex}\"}}", bytes.len()))
        }
        "sse" => sse(http, base),
        _ => {
            let answer = own(http.delete(format!("{base}/refused"))).send()?;
            let status = answer.status().as_u16();
            Ok(format!("{{\"status\":{},\"text\":{}}}", status, answer.text()?))
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let http = Client::new();
    for case in &args[2..] {
        let found = run(&http, &args[1], case).unwrap_or_else(|error| {
            let text = format!("{error:?}").replace(['"', '\\'], "'");
            format!("{{\"error\":\"{text}\"}}")
        });
        println!("{{\"case\":\"{case}\",\"found\":{found}}}");
    }
}
