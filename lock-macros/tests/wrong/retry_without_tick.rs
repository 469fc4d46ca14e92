#[leasehold::locked(name = "job", retry)]
async fn job() {}

fn main() {}
