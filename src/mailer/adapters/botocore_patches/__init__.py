"""Where botocore's behaviour is changed: what each module relies on in botocore, and which test fails first when that changes.

connections.py      Replaces `client._endpoint.http_session` by a subclass of `httpsession.URLLib3Session`; relies on its
                    `_pool_classes_by_scheme`, `_get_ssl_context` and `_setup_ssl_cert`, on urllib3's `ConnectionCls`, on
                    `HTTPConnection.request` writing through `send`, and on the comments in botocore's `cacert.pem`.
                    First: tests/functional/test_ses_connections.py.
signing.py          Registers a signer in `auth.AUTH_TYPE_MAPS` and chooses it in the event `choose-signer.SERVICE`; relies on
                    `SigV4Auth` calling `headers_to_sign`, `canonical_headers`, `signed_headers`, `payload` and `_sign`, and on
                    `handlers.set_operation_specific_signer`. First: tests/unit/test_signing.py.
raw_message.py      Takes `RawMessage.Data` out in `before-parameter-build.ses.SendRawEmail` and puts the finished form in at
                    `before-call.ses.SendRawEmail`; relies on `params["body"]` being the fields of the form, with
                    `RawMessage.Data` among them, and on bytes being signed and sent as they are.
                    First: tests/unit/test_ses_body.py.
raw_content.py      The same for `Content.Raw.Data` of sesv2's SendEmail; relies on `params["body"]` being the bytes of JSON as `json.dumps`
                    writes it by default. First: tests/unit/test_ses_body.py.
json_objects.py     Raises in `before-parse` for an answer that is no JSON object, which botocore reads as one without members;
                    relies on `response_dict["body"]`. First: tests/functional/test_odd_answers.py.
payload_loggers.py  Switches loggers off by name; relies on the names, and on botocore writing payloads to no other one.
                    First: tests/functional/test_credentials.py.

The events are public (`client.meta.events`); the attributes that begin with an underscore are not, and botocore is pinned with hashes, so
that each new version meets these tests before it ships.
"""
