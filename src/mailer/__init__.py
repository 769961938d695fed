"""Send e-mail through each tenant's own Amazon SES account.

The handlers (`handlers`) receive send requests from the queue or the API, get their dependencies from `wiring` and call a service.
`services.sending` takes a request through these steps: the tenant's provider row, its decrypted config and credentials, the MIME message,
a sending slot, the fence (`domain.delivery.BEGIN`), SES, the outcome. Decisions are in `domain`, which is pure; calls to AWS are in
`adapters`, behind the Protocols of `ports`. `services.sweeping` moves on requests that wait or got stuck; `services.events` publishes
every end to other systems.
"""
