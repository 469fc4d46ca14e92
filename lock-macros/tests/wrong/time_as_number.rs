#[leasehold::locked(name = "job", ttl = 5)]
async fn job() {}

fn main() {}
