// Sends a batch with nodemailer over @aws-sdk/client-sesv2, a transport a tenant, all messages at once; measures batches once it is warm.
//
//     node node.mjs RESULT '{"configs": {…}, "content": {…}, "size": 100, "count": 5, "file": 0}'
import { writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { SESv2Client, SendEmailCommand } from "@aws-sdk/client-sesv2";
import nodemailer from "nodemailer";

const { configs, content, size, count, file } = JSON.parse(process.argv[3]);
const attachment = file ? randomBytes(file) : null;

const transports = Object.fromEntries(
  Object.entries(configs).map(([tenant, { region, accessKeyId, secretAccessKey }]) => {
    const sesClient = new SESv2Client({ region, credentials: { accessKeyId, secretAccessKey } });
    return [tenant, nodemailer.createTransport({ SES: { sesClient, SendEmailCommand } })];
  }),
);

const send = (tenant) =>
  transports[tenant].sendMail({
    from: { name: configs[tenant].fromName, address: configs[tenant].fromAddress },
    to: content.to.map(({ email, name }) => ({ address: email, name })),
    subject: content.subject,
    text: content.text,
    html: content.html,
    attachments: attachment ? [{ filename: "Rechnung.pdf", content: attachment }] : [],
  });

const tenants = Object.keys(configs);
const batch = () => Promise.all(Array.from({ length: size }, (_, n) => send(tenants[n % tenants.length])));

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

for (let n = 0; n < 3; n++) await batch(); // until the compiler has seen it, and every connection is open
const walls = [];
const cpus = [];
for (let n = 0; n < count; n++) {
  const [begin, used] = [process.hrtime.bigint(), process.cpuUsage()];
  await batch();
  const { user, system } = process.cpuUsage(used);
  walls.push(Number(process.hrtime.bigint() - begin) / 1e9);
  cpus.push((user + system) / 1e6 / size);
}
writeFileSync(process.argv[2], JSON.stringify({ wall: median(walls), cpu: median(cpus) }));
