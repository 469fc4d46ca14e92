#[leasehold::locked(name = "mail-{}")]
async fn job() {}

fn main() {}
