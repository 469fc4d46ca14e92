#[leasehold::locked(name = "job", tick = at, retry = true)]
async fn job(at: std::time::SystemTime) {}

fn main() {}
