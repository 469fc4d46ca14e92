#[leasehold::locked(name = "job", ttl = seconds)]
async fn job(seconds: u64) {}

fn main() {}
