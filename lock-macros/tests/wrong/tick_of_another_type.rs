#[leasehold::locked(name = "job", tick = at)]
async fn job(at: &str) {}

fn main() {}
