/** Which addresses the workers may talk to, as their permissions will judge them. */
import { BlockList, isIP } from "node:net";

/** Whether an IP address is one of `networks`: addresses, in brackets if IPv6, and IPv4 networks. */
export function isWithin(networks: readonly string[], address: string): boolean {
  const bare = address.replace(/^\[|\]$/g, "");
  const version = isIP(bare);
  if (version === 0) return false;
  const list = new BlockList();
  for (const network of networks) {
    const [base, bits] = network.replace(/[[\]]/g, "").split("/");
    const family = base!.includes(":") ? "ipv6" : "ipv4";
    if (bits === undefined) list.addAddress(base!, family);
    else list.addSubnet(base!, Number(bits), family);
  }
  return list.check(bare, version === 6 ? "ipv6" : "ipv4");
}
