"""The stack has the outputs of the contract."""

from support.aws import tables

OUTPUTS = {
    "ApiUrl",
    "SendQueueUrl",
    "SendQueueArn",
    "DeadLetterQueueUrl",
    "QueueKeyArn",
    "ProvidersTableName",
    "MessagesTableName",
    "ProviderKeyArn",
    "AttachmentsBucketName",
    "DashboardUrl",
    "FeedbackBusArn",
    "FeedbackQueueUrl",
    "SuppressionsTableName",
}


def test_the_outputs_are_those_of_the_contract() -> None:
    """Callers and operators find them without the AWS console."""
    assert set(tables.template()["Outputs"]) == OUTPUTS
    assert all(output["Description"] for output in tables.template()["Outputs"].values())


def test_the_api_url_is_the_base_of_the_routes() -> None:
    """It ends with the stage, without a slash: routes begin with one."""
    api = tables.template()["Resources"]["Api"]["Properties"]
    assert tables.template()["Outputs"]["ApiUrl"]["Value"]["Fn::Sub"].endswith(f"/{api['StageName']}")
