//! A page in a browser talks to the control plane by gRPC-Web, if its origin has been named.

mod process;

use fusebox_proto::v1::{ListPoliciesRequest, ListPoliciesResponse};
use process::Process;
use prost::Message as _;

const PAGE: &str = "https://ops.example";

/// A message as gRPC-Web frames it.
fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let size = u32::try_from(bytes.len()).expect("a short message").to_be_bytes();
    [&[0][..], &size, &bytes].concat()
}

/// The frames of an answer: the first byte of each, and what is in it.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = body {
        let (own, further) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        frames.push((*kind, own.to_vec()));
        body = further;
    }
    frames
}

async fn list(server: &Process, origin: &str, parent: &str) -> reqwest::Response {
    reqwest::Client::builder()
        .http1_only()
        .build()
        .expect("a client")
        .post(format!("{}/fusebox.v1.PolicyService/ListPolicies", server.url))
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1")
        .header("origin", origin)
        .body(framed(&ListPoliciesRequest { parent: parent.to_owned(), ..ListPoliciesRequest::default() }))
        .send()
        .await
        .expect("the server answers")
}

fn allowed(response: &reqwest::Response) -> Option<&str> {
    response.headers().get("access-control-allow-origin").map(|origin| origin.to_str().expect("an origin is text"))
}

#[tokio::test]
async fn a_page_of_a_named_origin_lists_policies_and_reads_errors() {
    let server = Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0", "--web-origin", PAGE]);
    let asked = reqwest::Client::new()
        .request(reqwest::Method::OPTIONS, format!("{}/fusebox.v1.PolicyService/ListPolicies", server.url))
        .header("origin", PAGE)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-grpc-web,authorization")
        .send()
        .await
        .unwrap();
    assert_eq!(allowed(&asked), Some(PAGE));
    let headers = asked.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(headers.contains("authorization") && headers.contains("x-grpc-web"), "{headers}");

    let answer = list(&server, PAGE, "namespaces/default").await;
    assert_eq!((answer.status().as_u16(), allowed(&answer)), (200, Some(PAGE)));
    let body = answer.bytes().await.unwrap();
    let [(0, message), (0x80, trailers)] = &frames(&body)[..] else { panic!("{body:?}") };
    assert_eq!(ListPoliciesResponse::decode(&message[..]).unwrap().policies, []);
    assert!(String::from_utf8_lossy(trailers).contains("grpc-status:0"), "{trailers:?}");

    // An error comes with its details, and the page may read them.
    let refused = list(&server, PAGE, "nowhere").await;
    let shown = refused.headers()["access-control-expose-headers"].to_str().unwrap().to_owned();
    assert!(shown.contains("grpc-status") && shown.contains("grpc-status-details-bin"), "{shown}");
    let status = refused.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
    let body = refused.bytes().await.unwrap();
    let told = frames(&body).iter().any(|(_, frame)| String::from_utf8_lossy(frame).contains("grpc-status:3"));
    assert!(status.as_deref() == Some("3") || told, "{status:?} {body:?}");

    let stranger = list(&server, "https://elsewhere.example", "namespaces/default").await;
    assert_eq!(
        (stranger.status().as_u16(), allowed(&stranger)),
        (403, None),
        "a browser shows the answer to nobody else"
    );
}

#[tokio::test]
async fn without_a_named_origin_no_page_is_served() {
    let server = Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0"]);
    let answer = list(&server, PAGE, "namespaces/default").await;
    assert_eq!((answer.status().as_u16(), allowed(&answer)), (403, None));
}
