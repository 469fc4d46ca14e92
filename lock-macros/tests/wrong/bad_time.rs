#[leasehold::locked(name = "job", ttl = "5 parsecs")]
async fn job() {}

fn main() {}
