use std::future::Future;
fn main() {
    let rt = tokio::runtime::Runtime::new().unwrap();
    let _g = rt.enter();
    let c = fusebox::Client::for_test("apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: b }\nspec:\n  match: { target: b }\n  pipeline:\n    - circuitBreaker: { window: { time: 10s }, trip: { failureRate: { percent: 50 }, slowCallRate: { percent: 50 }, slowCallDuration: 1s } }\n").unwrap();
    let t = c.target("b");
    println!("CallError {}", std::mem::size_of::<fusebox::CallError<std::convert::Infallible>>());
    let n = 50_000_000u64;
    let b = std::time::Instant::now();
    for _ in 0..n {
        let f = t.call(|| std::future::ready(Ok::<u64, std::convert::Infallible>(1)));
        let mut f = std::pin::pin!(f);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = std::hint::black_box(f.as_mut().poll(&mut cx));
    }
    println!("{:?}", b.elapsed() / n as u32);
}
