// A stock gRPC client of another language, that knows nothing of lstmserve: health, then the contract by reflection, then calls by it.
//
//     node stock_client.mjs HOST:PORT FOLDER TOKEN    with ca.pem, client.pem, client.key and descriptors.binpb in the folder
//
// Prints one line of JSON.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [address, folder, token] = process.argv.slice(2);
const read = (name) => readFileSync(join(folder, name));
const credentials = grpc.credentials.createSsl(read("ca.pem"), read("client.key"), read("client.pem"));
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${token}`);

const options = { enums: String, longs: Number, oneofs: true };
const standard = grpc.loadPackageDefinition(protoLoader.loadFileDescriptorSetFromBuffer(read("descriptors.binpb"), options));
const call = (service, method, request, meta = metadata) => promisify(service[method]).call(service, request, meta);

const health = new standard.grpc.health.v1.Health(address, credentials);
const { status } = await call(health, "Check", { service: "lstmserve.v1.LstmService" }, new grpc.Metadata());

const reflection = new standard.grpc.reflection.v1alpha.ServerReflection(address, credentials);
async function ask(question) {
  const stream = reflection.ServerReflectionInfo(metadata);
  stream.write(question);
  stream.end();
  const answers = [];
  for await (const answer of stream) answers.push(answer);
  return answers[0];
}
const services = (await ask({ list_services: "*" })).list_services_response.service.map(({ name }) => name);
const found = (await ask({ file_containing_symbol: "lstmserve.v1.LstmService" })).file_descriptor_response.file_descriptor_proto;

// A FileDescriptorSet is its files, each as field 1 with its length before it.
function field(bytes) {
  const head = [0x0a];
  let length = bytes.length;
  for (; length > 0x7f; length >>>= 7) head.push((length & 0x7f) | 0x80);
  return Buffer.concat([Buffer.from([...head, length]), bytes]);
}
const contract = protoLoader.loadFileDescriptorSetFromBuffer(Buffer.concat(found.map(field)), options);
const { LstmService } = grpc.loadPackageDefinition(contract).lstmserve.v1;
const service = new LstmService(address, credentials);

const first = await call(service, "Step", { x: { shape: [1, 1], values: [0.5] } });
const second = await call(service, "Step", { x: { shape: [1, 1], values: [0.25] }, state: first.state });
const { models } = await call(service, "ListModels", {});
const refused = await call(service, "Step", {}, new grpc.Metadata()).catch((error) => error.code);

const stream = service.StreamSteps(metadata);
stream.write({ open: {} });
stream.write({ input: { number: 1, x: { shape: [1, 1], values: [0.5] } } });
stream.end();
const kinds = [];
for await (const { message } of stream) kinds.push(message);

console.log(
  JSON.stringify({ status, services, output: second.output.values, models: models.map(({ name }) => name), refused, kinds }),
);
