"""Send e-mail through each tenant's own Amazon SES account.

A send request comes off the queue or from the API (`handlers`), which take what they need from `wiring` and call a service.
`services.send` walks it through the steps: the tenant's provider row, its decrypted config and credentials, the MIME message,
a sending slot, the fence (`domain.delivery.BEGIN`), SES, the outcome. What is decided lives in `domain` and touches nothing;
what is asked of AWS lives in `adapters`, behind the Protocols of `ports`. What waits or got stuck is moved on by `services.sweep`;
every end is published to other systems by `services.publish`.
"""
