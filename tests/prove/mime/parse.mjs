// Reads mails, one a line in base64, with two parsers; answers one JSON line for each with what they understood.
import { createInterface } from "node:readline";
import { simpleParser } from "mailparser";
import PostalMime from "postal-mime";

const octets = (content) => Buffer.from(content).toString("base64");
const box = ({ name, address }) => ({ name: name ?? "", address });

async function mailparser(raw) {
  const mail = await simpleParser(raw, { skipTextToHtml: true, skipHtmlToText: true, skipTextLinks: true, skipImageLinks: true });
  return {
    subject: mail.subject ?? "",
    from: (mail.from?.value ?? []).map(box),
    to: (mail.to?.value ?? []).map(box),
    cc: (mail.cc?.value ?? []).map(box),
    bcc: (mail.bcc?.value ?? []).map(box),
    text: mail.text ?? null,
    html: mail.html || null,
    names: mail.headerLines.map(({ key }) => key),
    attachments: mail.attachments.map(({ filename, contentType, cid, contentDisposition, content }) => ({
      filename: filename ?? "", contentType, cid: cid ?? "", disposition: contentDisposition, content: octets(content),
    })),
  };
}

async function postalMime(raw) {
  const mail = await PostalMime.parse(raw, { forceRfc822Attachments: true });
  return {
    subject: mail.subject ?? "",
    from: mail.from ? [box(mail.from)] : [],
    to: (mail.to ?? []).map(box),
    cc: (mail.cc ?? []).map(box),
    bcc: (mail.bcc ?? []).map(box),
    text: mail.text ?? null,
    html: mail.html ?? null,
    names: mail.headers.map(({ key }) => key),
    attachments: mail.attachments.map(({ filename, mimeType, contentId, disposition, content }) => ({
      filename: filename ?? "", contentType: mimeType, cid: (contentId ?? "").replace(/^<|>$/g, ""), disposition, content: octets(content),
    })),
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const raw = Buffer.from(line, "base64");
  console.log(JSON.stringify({ mailparser: await mailparser(raw), postalMime: await postalMime(raw) }));
}
