/** Lint rules that keep the project's shape while one types: `aetherflow/imports` (who may import whom),
 *  `aetherflow/pure` (time and chance come in as arguments) and `aetherflow/platform` (who may use `Deno.*`).
 *  What they enforce is data in rules.ts; imports_test.ts checks the same over the whole module graph. */
import { importProblem, IMPURE_GLOBALS, IMPURE_MEMBERS, IMPURE_NODE_NAMES, isPure, partOf } from "./rules.ts";

const ROOT = new URL("../../", import.meta.url);

/** The import map's entries that lead to files, as deno.json has them. */
export const MAPPED: ReadonlyArray<readonly [string, string]> = [
  ["$proto/", "proto/gen/"],
  ["@std/assert", "tests/support/assert.ts"],
];

const plugin: Deno.lint.Plugin = {
  name: "aetherflow",
  rules: {
    imports: { create: importRule },
    pure: { create: pureRule },
    platform: { create: platformRule },
  },
};
export default plugin;

function importRule(context: Deno.lint.RuleContext): Deno.lint.LintVisitor {
  const from = projectPath(context.filename);
  if (from === undefined) return {};

  function check(source: Deno.lint.Node | null): void {
    if (source === null || source.type !== "Literal" || typeof source.value !== "string") return;
    const target = resolve(from!, source.value);
    if (target === undefined) return;
    const message = importProblem(from!, target.to, target.kind);
    if (message !== undefined) context.report({ node: source, message });
  }

  return {
    ImportDeclaration: (node) => check(node.source),
    ExportNamedDeclaration: (node) => check(node.source),
    ExportAllDeclaration: (node) => check(node.source),
    ImportExpression: (node) => check(node.source),
  };
}

function pureRule(context: Deno.lint.RuleContext): Deno.lint.LintVisitor {
  const path = projectPath(context.filename);
  if (path === undefined || !isPure(path)) return {};
  return {
    Identifier(node) {
      const hint = Object.hasOwn(IMPURE_GLOBALS, node.name) ? IMPURE_GLOBALS[node.name] : undefined;
      if (hint === undefined || !isReference(node) || isDeclared(node)) return;
      context.report({ node, message: `${path} is pure and may not use ${node.name}`, hint });
    },
    MemberExpression(node) {
      if (node.object.type !== "Identifier" || isDeclared(node.object)) return;
      const members = Object.hasOwn(IMPURE_MEMBERS, node.object.name)
        ? IMPURE_MEMBERS[node.object.name]
        : undefined;
      const member = memberName(node);
      if (members === undefined || (member !== undefined && !members.includes(member))) return;
      context.report({
        node,
        message: `${path} is pure and may not use ${node.object.name}.${member ?? "[…]"}`,
        hint: "take a Random as a dependency",
      });
    },
    ImportDeclaration(node) {
      const from = node.source.value;
      if (!from.startsWith("node:") || node.importKind === "type") return;
      const impure = Object.hasOwn(IMPURE_NODE_NAMES, from) ? IMPURE_NODE_NAMES[from] : undefined;
      if (impure === undefined) {
        context.report({ node, message: `${path} is pure and may not import ${from}` });
        return;
      }
      if (impure.length === 0) return;
      for (const specifier of node.specifiers) {
        if (specifier.type !== "ImportSpecifier") {
          context.report({
            node: specifier,
            message: `${path} is pure: import the names it needs of ${from} one by one`,
          });
          continue;
        }
        const name = specifier.imported.type === "Identifier"
          ? specifier.imported.name
          : specifier.imported.value;
        if (impure.includes(String(name))) {
          context.report({
            node: specifier,
            message: `${path} is pure and may not import ${name} of ${from}`,
          });
        }
      }
    },
  };
}

function platformRule(context: Deno.lint.RuleContext): Deno.lint.LintVisitor {
  const path = projectPath(context.filename);
  const part = path === undefined ? undefined : partOf(path);
  // A pure file's use is reported by the stricter rule.
  if (part === undefined || part.platform || part.pure) return {};
  return {
    Identifier(node) {
      if (node.name !== "Deno" || !isReference(node) || isDeclared(node)) return;
      context.report({
        node,
        message: `${part.name} (${path}) may not use Deno.*`,
        hint: "a service's worker.ts is the place that touches the platform",
      });
    },
  };
}

/** The path from the project's root, or undefined for a file outside it. Editors and tests may give a relative one. */
function projectPath(filename: string): string | undefined {
  const url = filename.startsWith("file:") ? filename : new URL(filename.replaceAll("\\", "/"), ROOT).href;
  return url.startsWith(ROOT.href) ? decodeURIComponent(url.slice(ROOT.href.length)) : undefined;
}

/** What a specifier leads to: a project path or a package; undefined for what other tools check (a URL of the net). */
function resolve(from: string, specifier: string): { to: string; kind: "file" | "package" } | undefined {
  for (const [name, path] of MAPPED) {
    if (specifier === name || (name.endsWith("/") && specifier.startsWith(name))) {
      return { to: path + specifier.slice(name.length), kind: "file" };
    }
  }
  if (specifier.startsWith("./") || specifier.startsWith("../")) {
    const to = projectPath(new URL(specifier, new URL(from, ROOT)).href);
    return to === undefined ? undefined : { to, kind: "file" };
  }
  if (specifier.startsWith("node:")) return { to: specifier, kind: "package" };
  return { to: packageName(specifier), kind: "package" };
}

/** `npm:@scope/name@1/sub` and `@scope/name/sub` are both the package `@scope/name`. */
function packageName(specifier: string): string {
  const bare = specifier.replace(/^npm:\/?/, "");
  return /^(@[^/]+\/[^/@]+|[^/@]+)/.exec(bare)?.[1] ?? bare;
}

function memberName(node: Deno.lint.MemberExpression): string | undefined {
  if (!node.computed && node.property.type === "Identifier") return node.property.name;
  if (node.property.type === "Literal" && typeof node.property.value === "string") return node.property.value;
  return undefined;
}

/** Whether an identifier names a value or type, and not a property, key, label or import's foreign name. */
function isReference(node: Deno.lint.Identifier): boolean {
  const parent = node.parent as Deno.lint.Node | undefined;
  switch (parent?.type) {
    case "MemberExpression":
      return parent.object === node || parent.computed;
    case "Property":
    case "PropertyDefinition":
    case "MethodDefinition":
      return parent.key !== node || parent.computed;
    case "TSPropertySignature":
    case "TSMethodSignature":
    case "TSAbstractMethodDefinition":
    case "TSAbstractPropertyDefinition":
    case "TSEnumMember":
    case "TSNamedTupleMember":
    case "ImportSpecifier":
    case "ExportSpecifier":
    case "LabeledStatement":
    case "BreakStatement":
    case "ContinueStatement":
      return false;
    case "TSQualifiedName":
      return parent.left === node;
    default:
      return true;
  }
}

/** Whether an enclosing scope declares the identifier's name, so that it is not the global. */
function isDeclared(node: Deno.lint.Identifier): boolean {
  let scope = node.parent as Deno.lint.Node | undefined;
  while (scope !== undefined && scope !== null) {
    if (declaredIn(scope).includes(node.name)) return true;
    scope = (scope as { parent?: Deno.lint.Node }).parent;
  }
  return false;
}

/** The names that a node declares for what is inside it. */
function declaredIn(scope: Deno.lint.Node): string[] {
  switch (scope.type) {
    case "Program":
    case "BlockStatement":
    case "StaticBlock":
      return scope.body.flatMap(declaredBy);
    case "FunctionDeclaration":
    case "FunctionExpression":
    case "ArrowFunctionExpression":
      return scope.params.flatMap(boundBy);
    case "CatchClause":
      return scope.param === null ? [] : boundBy(scope.param);
    case "ForStatement":
      return scope.init === null ? [] : declaredBy(scope.init);
    case "ForOfStatement":
    case "ForInStatement":
      return declaredBy(scope.left);
    default:
      return [];
  }
}

/** The names that a statement of a scope declares in it. */
function declaredBy(statement: Deno.lint.Node): string[] {
  switch (statement.type) {
    case "VariableDeclaration":
      return statement.declarations.flatMap((declaration) => boundBy(declaration.id));
    case "FunctionDeclaration":
    case "ClassDeclaration":
    case "TSInterfaceDeclaration":
    case "TSTypeAliasDeclaration":
    case "TSEnumDeclaration":
      return statement.id === null ? [] : boundBy(statement.id);
    case "ImportDeclaration":
      return statement.specifiers.flatMap((specifier) => boundBy(specifier.local));
    case "ExportNamedDeclaration":
      return statement.declaration === null ? [] : declaredBy(statement.declaration);
    default:
      return [];
  }
}

/** The names that a binding pattern binds. */
function boundBy(pattern: Deno.lint.Node | Deno.lint.Parameter): string[] {
  switch (pattern.type) {
    case "Identifier":
      return [pattern.name];
    case "ObjectPattern":
      return pattern.properties.flatMap((property) =>
        boundBy(property.type === "Property" ? property.value : property.argument)
      );
    case "ArrayPattern":
      return pattern.elements.flatMap((element) => element === null ? [] : boundBy(element));
    case "AssignmentPattern":
      return boundBy(pattern.left);
    case "RestElement":
      return boundBy(pattern.argument);
    case "TSParameterProperty":
      return boundBy(pattern.parameter);
    default:
      return [];
  }
}
