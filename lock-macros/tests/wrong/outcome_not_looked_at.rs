#![deny(unused_must_use)]

#[leasehold::locked(name = "job")]
async fn job() {}

async fn caller() -> Result<(), leasehold::LockError> {
    job().await?;
    Ok(())
}

fn main() {}
