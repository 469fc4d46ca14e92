#[leasehold::locked(name = "job", ttl = "5s", ttl = "6s")]
async fn job() {}

fn main() {}
